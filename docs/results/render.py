"""Write the tables in docs/results/README.md and README.md from the figures in docs/results.

`make results` measures again first. Each file NAME.json is what `parity bench --json` wrote.
"""

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent.parent / "README.md"
BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def table(rows: list[list[str]]) -> str:
    """Return rows as a table of Markdown, the first as its head."""
    head, *body = rows
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *body))


def everything() -> str:
    """Return docs/results/README.md."""
    parts = ["# Results", "Made from the files beside it by `python docs/results/render.py`."]
    for file in sorted(HERE.glob("*.json")):
        result = json.loads(file.read_text())
        parts += [f"## {file.name}", _where(result), f"```\n{result['command']}\n```"]
        for tables in result["tables"].values():
            parts += [table(rows) for rows in tables.values()]
        parts.append(f"```\n{result['verdict']}\n```")
    return "\n\n".join(parts) + "\n"


def summary() -> str:
    """Return README's table: an epoch, of every arm in every file."""
    results = [json.loads(file.read_text()) for file in sorted(HERE.glob("*.json"))]
    columns: dict[str, dict[str, str]] = {}
    for result in results:
        for size, tables in result["tables"].items():
            if "seed" not in result["arms"] or "epoch" not in tables:
                continue
            label = f"{_device(result)}, {_threads(result)}, batches of {size}"
            if label in columns:
                raise ValueError(f"two results for {label}")
            columns[label] = {
                row[0]: f"{row[1]}, {row[3]}×{' (unstable)' * bool(row[6])}"
                for row in tables["epoch"][1:]
            }
    arms = dict.fromkeys(arm for column in columns.values() for arm in column)
    rows = [[arm, *(column.get(arm, "-") for column in columns.values())] for arm in arms]
    shown = [row for row in rows if not re.search(r" again$| slowed by ", row[0])]
    return table([["one epoch of MNIST", *columns], *shown])


def _where(result: dict[str, Any]) -> str:
    environment = result["environment"]
    versions = ", ".join(
        f"{package} {values[package]}"
        for backend, package in (("torch", "torch"), ("jax", "jax"))
        if (values := environment.get(backend))
    )
    return (
        f"{environment['processor']}, {environment['cores usable']} cores; {_threads(result)};"
        f" Python {environment['python']}, {versions}; {result['rounds']} rounds."
    )


def _device(result: dict[str, Any]) -> str:
    devices = {
        values["device"] for values in result["environment"].values() if isinstance(values, dict)
    }
    return " and ".join(sorted(devices))


def _threads(result: dict[str, Any]) -> str:
    return f"{result['threads']} thread{'s' * (result['threads'] > 1)}"


def main() -> None:
    """Write both files."""
    (HERE / "README.md").write_text(everything())
    README.write_text(BLOCK.sub(lambda m: f"{m[1]}{summary()}\n{m[2]}", README.read_text()))


if __name__ == "__main__":
    main()
