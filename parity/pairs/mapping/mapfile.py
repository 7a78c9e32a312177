"""The map of a pair as a TOML file, one table a row."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parity.contract.errors import os_errors_as
from parity.contract.files import write_whole
from parity.pairs.pair import PairError
from parity.pairs.proof import MapRow


def write_map(path: Path, rows: Sequence[MapRow]) -> None:
    """Write rows so that `read_map` returns them. OutputError: it cannot be written."""
    parts = ["# PyTorch's leaf, JAX's leaf, and the einops pattern from the one to the other."]
    for row in rows:
        lines = [
            "[[row]]",
            f'torch = "{row.torch}"',
            f'jax = "{row.jax}"',
            f'pattern = "{row.pattern}"',
        ]
        if row.sizes:
            sizes = ", ".join(f"{name} = {size}" for name, size in row.sizes.items())
            lines.append(f"sizes = {{ {sizes} }}")
        for side in ("torch_part", "jax_part"):
            part = getattr(row, side)
            if part:
                lines.append(f"{side} = {list(part)}  # part, of, axis")
        parts.append("\n".join(lines))
    write_whole(path, ("\n\n".join(parts) + "\n").encode())


def read_map(path: Path) -> list[MapRow]:
    """Return the rows of a file. PairError: it is missing, or no map."""
    with os_errors_as(PairError, f"cannot read the map {path}"):
        text = path.read_text()
    try:
        rows = tomllib.loads(text).get("row", [])
        return [_row(row) for row in rows]
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise PairError(f"{path} is no map: {error}; --save-map writes one") from error


def _row(row: dict[str, Any]) -> MapRow:
    unknown = set(row) - {"torch", "jax", "pattern", "sizes", "torch_part", "jax_part"}
    if unknown:
        raise ValueError(f"a row has no {', '.join(sorted(unknown))}")
    parts = {name: tuple(row[name]) for name in ("torch_part", "jax_part") if name in row}
    return MapRow(
        torch=str(row["torch"]),
        jax=str(row["jax"]),
        pattern=str(row["pattern"]),
        sizes=dict(row.get("sizes", {})),
        how="the user",
        **parts,
    )
