"""Write the tables in benchmarks/README.md and README.md from the figures in benchmarks/*.csv.

`python benchmarks/render.py MACHINE RUN.json ...` first makes MACHINE.csv of what `parity bench
--json` wrote. A row is what one process measured; above the table stands what each run was.
"""

import csv
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from parity.benchmark.result import Benchmark, Measurement, Timed
from parity.contract.recipe import Recipe

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)
COLUMNS = ("run", "batch", "arm", "round", *(field.name for field in fields(Measurement)))
RUN = [field.name for field in fields(Benchmark) if field.init and field.name != "timed"]


def write_csv(machine: Path, runs: dict[str, dict[str, Any]]) -> None:
    """Write what `parity bench --json` told of each run as one table."""
    with machine.open("w", newline="") as file:
        for name, told in runs.items():
            command = re.sub(r" --(json|report) \S+", "", told["command"])
            about = {"run": name} | {key: told[key] for key in RUN} | {"command": command}
            file.write(f"# {json.dumps(about)}\n")
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for name, told in runs.items():
            for size, arms in told["timed"].items():
                for arm, timed in arms.items():
                    if timed["failed"]:
                        sys.exit(f"{name}: {arm} does not count: {timed['failed']}")
                    for number, found in enumerate(timed["measurements"], start=1):
                        values = (found[column] for column in COLUMNS[4:])
                        short = (f"{v:.9g}" if isinstance(v, float) else v for v in values)
                        rows.writerow([name, size, arm, number, *short])


def read_csv(machine: Path) -> dict[str, Benchmark]:
    """Return the runs of a table; only arms that count are in one."""
    lines = machine.read_text().splitlines()
    timed: dict[str, dict[int, dict[str, Timed]]] = {}
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        values = {name: json.loads(row[name] or "null") for name in COLUMNS[4:]}
        arms = timed.setdefault(row["run"], {}).setdefault(int(row["batch"]), {})
        arms.setdefault(row["arm"], Timed()).measurements.append(Measurement(**values))
    runs = {}
    for about in (json.loads(line[2:]) for line in lines if line.startswith("#")):
        recipe = Recipe(**{field.name: about["recipe"][field.name] for field in fields(Recipe)})
        name, own = about.pop("run"), {**about, "recipe": recipe}
        runs[name] = Benchmark(**own, timed=timed[name])
    return runs


def everything() -> str:
    """Return benchmarks/README.md."""
    parts = ["# Results", "Made from the tables beside it by `python benchmarks/render.py`."]
    for machine, name, found in _runs():
        head = f"## {machine}: {name}\n\n{_where(found)}"
        parts += [head, f"```\n{found.command}\n```"]
        for size in found.timed:
            parts += [_table(found.rows(size, phase)) for phase in found.phases]
            parts.append(_table(found.costs(size)))
        parts.append(f"```\n{found}\n```")
    return "\n\n".join(parts) + "\n"


def summary() -> str:
    """Return README's table: an epoch, of every arm of the runs with the tutorial's loop."""
    columns: dict[str, dict[str, str]] = {}
    for machine, _, found in _runs():
        for size in found.timed:
            if "tutorial" in found.arms and "epoch" in found.phases:
                label = f"{machine}, {_threads(found)}, batches of {size}"
                columns[label] = {
                    row[0]: f"{row[1]}, {row[3]}×{' (unstable)' * bool(row[6])}"
                    for row in found.rows(size, "epoch")[1:]
                    if row[0] in found.arms
                }
    arms = dict.fromkeys(arm for column in columns.values() for arm in column)
    rows = [(arm, *(column.get(arm, "-") for column in columns.values())) for arm in arms]
    return _table([("one epoch of MNIST", *columns), *rows])


def _runs() -> Iterator[tuple[str, str, Benchmark]]:
    """Yield machine, name and result of each run."""
    for machine in sorted(HERE.glob("*.csv")):
        for name, found in read_csv(machine).items():
            yield machine.stem, name, found


def _table(rows: list[tuple[str, ...]]) -> str:
    """Return rows as a table of Markdown, the first as its head."""
    head, *body = rows
    ruler = ("---", *["---:"] * (len(head) - 1))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *body))


def _where(found: Benchmark) -> str:
    facts = found.environment
    versions = [f"{name} {facts[name][name]}" for name in ("torch", "jax") if name in facts]
    return (
        f"{facts['processor']}, {facts['cores usable']} cores; {_threads(found)};"
        f" {', '.join(['Python ' + facts['python'], *versions])}; {found.rounds} rounds."
    )


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
