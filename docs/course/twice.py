"""Shows a lesson twice: PyTorch's code left, JAX's right, and below each what it prints.

`tutorial_torch.py` and `tutorial_jax.py` are the same program in both frameworks, in cells of the
same names, and run by themselves too. A notebook runs them cell by cell.
"""

import contextlib
import html
import inspect
import io
import os
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

# beside a busy process PyTorch's threads would spin for each other; set before PyTorch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_CELL = re.compile(r"^# %% (.+)$", flags=re.MULTILINE)


class Columns:
    """Texts in two columns, as HTML, and one below the other where there is no HTML."""

    def __init__(self, *rows: tuple[str, str]) -> None:
        self._rows = rows

    def __repr__(self) -> str:
        sides = zip(("PyTorch", "JAX"), zip(*self._rows, strict=True), strict=True)
        return "\n".join(f"# {name}\n" + "\n".join(filter(None, texts)) for name, texts in sides)

    def _repr_html_(self) -> str:
        rows = [
            "".join(
                f'<td align="left" valign="top"><pre>{html.escape(text)}</pre></td>' for text in row
            )
            for row in self._rows
            if any(row)
        ]
        head = '<th align="left">PyTorch</th><th align="left">JAX</th>'
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


class Side:
    """One framework's program, and the variables that its cells have made so far."""

    def __init__(self, path: Path) -> None:
        parts = _CELL.split(path.read_text(encoding="utf-8"))
        self._path = path
        self.cells = {n: c.strip() for n, c in zip(parts[1::2], parts[2::2], strict=True)}
        self.variables: dict[str, Any] = {}

    def run(self, name: str) -> str:
        """Run a cell, and return what it prints."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = compile(self.cells[name], self._path.name, "exec")
            exec(code, self.variables)  # noqa: S102 - the lesson's own program, from this folder
        return printed.getvalue().rstrip()


_HERE = Path(__file__).parent
torch_side, jax_side = Side(_HERE / "tutorial_torch.py"), Side(_HERE / "tutorial_jax.py")


def twice(name: str) -> Columns:
    """Run the cell of that name in both programs; return both codes, and what they print."""
    sides = torch_side, jax_side
    codes, printed = (
        [f(s) for s in sides] for f in (lambda s: s.cells[name], lambda s: s.run(name))
    )
    return Columns((codes[0], codes[1]), (printed[0], printed[1]))


def sources(left: Callable[..., Any], right: Callable[..., Any]) -> Columns:
    """Return the source of two functions or classes of this project, side by side."""
    codes = [textwrap.dedent(inspect.getsource(x)).rstrip() for x in (left, right)]
    return Columns((codes[0], codes[1]))
