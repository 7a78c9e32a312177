"""Tables as plain text, the same on a terminal of any width and in a pipe."""

import textwrap
from collections.abc import Sequence

WIDTH = 80
"""Columns that a table and the lines below it take at most."""


def wrapped(line: str, *, indent: str = "  ") -> str:
    """Return a line, broken at spaces where it is too long, what follows indented."""
    return textwrap.fill(
        line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Return rows of equal length as lines; the first `left` columns are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = (f"{{:{'<' if place < left else '>'}{width}}}" for place, width in enumerate(widths))
    line = "  ".join(cells)
    return [line.format(*row).rstrip() for row in rows]
