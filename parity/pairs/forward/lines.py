"""The code of a region, on either side: operations with file and line."""

from collections.abc import Collection, Iterable

MOST = 8
"""Lines that are shown of a region."""
QUIET = ("view", "t", "transpose", "permute", "expand", "empty", "_unsafe_view", "clone")
"""PyTorch's operations that only arrange an array."""
_QUIET = {*QUIET, "broadcast_in_dim", "convert_element_type", "copy", "iota", "reshape", "squeeze"}


def told(operations: Iterable[tuple[str, str]], first: Collection[str] = ()) -> str:
    """Return operations by line, the last ones of many; `first` are lines that are always shown.

    Of many lines, those that only arrange an array are left out.
    """
    lines: dict[str, dict[str, None]] = {}
    for name, line in operations:
        lines.setdefault(line, {})[name] = None
    wanted = [line for line in lines if line in first]
    rest = [line for line in lines if line not in first]
    if len(lines) > MOST:
        rest = [line for line in rest if not lines[line].keys() <= _QUIET]
    kept = {*wanted, *rest[-max(MOST - len(wanted), 1) :]}
    shown = {line: ", ".join(names) for line, names in lines.items() if line in kept}
    return "; ".join(names + f" ({line})" * bool(line) for line, names in shown.items())
