"""Write the tables in benchmarks/README.md and README.md from the figures in benchmarks/*.csv.

`python benchmarks/render.py MACHINE RUN.json ...` first makes MACHINE.csv of what `parity bench
--json` wrote. A row is what one process measured; the lines above the table say what each run was.
"""

import csv
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import jinja2

from parity.benchmark.result import MEASURED, Benchmark, Timed
from parity.contract.recipe import Recipe

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)
TEMPLATE = jinja2.Template(
    (HERE / "README.md.jinja").read_text(),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
RUN = [field.name for field in fields(Benchmark) if field.name != "timed"]


def write_csv(machine: Path, runs: dict[str, dict[str, Any]]) -> None:
    """Write the JSON of `parity bench`, by the runs' names, as one table."""
    if failed := [line for run in runs.values() for line in run["failed"]]:
        sys.exit(f"does not count: {failed[0]}")
    with machine.open("w", newline="") as file:
        for name, run in runs.items():
            command = re.sub(r" --(json|report) \S+", "", run["command"])
            about = {"run": name} | {key: run[key] for key in RUN} | {"command": command}
            file.write(f"# {json.dumps(about)}\n")
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("run", "batch", "arm", "round", *MEASURED))
        for name, run in runs.items():
            for size, arms in run["timed"].items():
                for arm, timed in arms.items():
                    for number, found in enumerate(timed["rounds"], start=1):
                        rows.writerow([name, size, arm, number, *map(found.get, MEASURED)])


def read_csv(machine: Path) -> dict[str, Benchmark]:
    """Return the runs of a table by name."""
    lines = machine.read_text().splitlines()
    runs: dict[str, Benchmark] = {}
    for about in (json.loads(line[2:]) for line in lines if line.startswith("#")):
        name, recipe = about.pop("run"), Recipe.from_json(about.pop("recipe"))
        lists = {key: tuple(about.pop(key)) for key in ("phases", "arms")}
        runs[name] = Benchmark(recipe=recipe, **lists, **about)
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        arms = runs[row["run"]].timed.setdefault(int(row["batch"]), {})
        found = {key: json.loads(row[key] or "null") for key in MEASURED}
        arms.setdefault(row["arm"], Timed()).rounds.append(found)
    return runs


def everything() -> str:
    """Return benchmarks/README.md."""
    return TEMPLATE.render(runs=_runs(), threads=_threads)


def summary() -> str:
    """Return README's table: an epoch, of every arm of the runs with the tutorial's loop."""
    columns: dict[str, dict[str, str]] = {}
    for name, found in _runs().items():
        if "tutorial" not in found.arms or "epoch" not in found.phases:
            continue
        for size in found.timed:
            columns[f"{name.partition(':')[0]}, {_threads(found)}, batches of {size}"] = {
                arm: f"{median}, {speed}×{' (unstable)' * bool(unstable)}"
                for arm, median, _, speed, _, _, unstable in found.rows(size, "epoch")
                if arm in found.arms
            }
    arms = dict.fromkeys(arm for column in columns.values() for arm in column)
    rows = [(arm, *(column.get(arm, "-") for column in columns.values())) for arm in arms]
    macros: Any = TEMPLATE.module
    return macros.table([("one epoch of MNIST", *columns), *rows]).rstrip()


def _runs() -> dict[str, Benchmark]:
    """Return each run, by its machine and name."""
    machines = {machine.stem: read_csv(machine) for machine in sorted(HERE.glob("*.csv"))}
    return {f"{name}: {run}": found for name in machines for run, found in machines[name].items()}


def _threads(found: Benchmark) -> str:
    return f"{found.threads} thread{'s' * (found.threads > 1)}"


def main() -> None:
    """Write the table of a machine if it is named, then both pages."""
    if len(sys.argv) > 1:
        machine, *files = map(Path, sys.argv[1:])
        runs = {file.stem: json.loads(file.read_text()) for file in files}
        write_csv(HERE / f"{machine}.csv", runs)
    (HERE / "README.md").write_text(everything())
    README.write_text(BLOCK.sub(lambda m: f"{m[1]}{summary()}\n{m[2]}", README.read_text()))


if __name__ == "__main__":
    main()
