"""Tables as plain text, the same on a terminal of any width and in a pipe."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Return rows of equal length as lines; the first `left` columns are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = (f"{{:{'<' if place < left else '>'}{width}}}" for place, width in enumerate(widths))
    line = "  ".join(cells)
    return [line.format(*row).rstrip() for row in rows]
