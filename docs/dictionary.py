"""Write docs/dictionary.md: functions and layers of PyTorch and JAX, each pair judged.

`python -m docs.dictionary` judges every entry of docs/entries with `parity.prove`: forward and
gradients, optimisers and schedules over several steps. It takes some minutes.
"""

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

import jax
import torch

from docs.entries import Entry
from parity import prove
from parity.pairs.proof import Proof

PAGE = Path(__file__).with_suffix(".md")
GROUPS = (
    "activations", "linear", "norms", "losses", "convolutions", "pooling", "attention",
    "optimizers", "schedules", "initializers", "metrics", "tensors",
)  # fmt: skip
"""Modules of docs/entries, in the page's order."""
HEAD = """\
# A dictionary of PyTorch and JAX

{count} pairs of calls: {verdicts}.
Each is judged by `parity.prove`: forward and gradients in float64, and what float32 adds.
Written by `make dictionary` with {versions}.

A size is the largest error over the largest value. `x`, `y` are arrays of any shape that fits, `w`
a kernel, `labels` integers; `nhwc` and `nchw` move the channels to the last and to the second
axis. `attend` is `jax.nn.dot_product_attention` with PyTorch's order of axes, as `blhd` makes it;
`computed` gives a metric's value after one update. Layers get the same random weights; `rngs=` is
left out. Initialisers are functions of the same quantiles. The row of an optimiser, a schedule or
a clipping is the training of a linear layer over several steps.
"""
COLUMNS = ("| what | PyTorch | JAX | verdict |", "| --- | --- | --- | --- |")
VERDICTS = ("same to rounding", "same with", "different")


class _Shown(ast.NodeTransformer):
    """Leaves Flax's random streams out."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg != "rngs"]
        return self.generic_visit(node)


def entries(group: ModuleType) -> Iterator[tuple[Entry, dict[str, str]]]:
    """Yield the entries of a module, each with the code of its fields."""
    calls = {}
    for node in ast.walk(ast.parse(inspect.getsource(group))):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            fields = dict(zip(inspect.signature(Entry).parameters, node.args, strict=False))
            fields |= {k.arg: k.value for k in node.keywords if k.arg}
            calls[node.args[0].value] = fields
    names = [entry.name for entry in group.ENTRIES]
    if len(set(names)) < len(names):
        raise ValueError(f"two entries of {group.__name__} have one name")
    for entry in group.ENTRIES:
        yield entry, {name: _shown(node) for name, node in calls[entry.name].items()}


def _shown(node: ast.expr) -> str:
    """Return what the page shows of an expression; of a function its body."""
    return ast.unparse(_Shown().visit(node.body if isinstance(node, ast.Lambda) else node))


def row(entry: Entry, code: dict[str, str]) -> str:
    """Judge an entry; return its row of the table."""
    cells = (entry.name, _code(code["torch"]), _code(code["jax"]), verdict(entry, code))
    return f"| {' | '.join(cells)} |"


def verdict(entry: Entry, code: dict[str, str]) -> str:
    """Return what the proof says of an entry.

    ValueError: the entry says something that the proof does not bear out.
    """
    torch.manual_seed(0)
    found = prove(entry.pair(entry.jax))
    if found.same:
        if entry.note or entry.with_options:
            raise ValueError(f"{entry.name} is the same, and needs neither note nor options")
        return f"same to rounding{_notes(found)}"
    why = _why(entry, found)
    if entry.with_options is None:
        return f"different: {why}"
    other = prove(entry.pair(entry.with_options))
    if not other.same:
        raise ValueError(f"{entry.name} is not the same with its options:\n{other.table()}")
    return f"same with {_code(code['with_options'])}{_notes(other)}; else different: {why}"


def _why(entry: Entry, found: Proof) -> str:
    said = []
    for one in found.differences:
        stage = {"gradients": " in the gradient", "float32": " in float32"}.get(one.stage, "")
        size = "not finite on one side" if one.size > 1e300 else f"by {one.size:.2g}"
        said.append(f"{size}{stage}" + (f", {one.explanation}" if one.cause else ""))
    if any(one.cause is None for one in found.differences) or not found.differences:
        if not entry.note:
            raise ValueError(f"{entry.name} differs, and nothing says why:\n{found.table()}")
        said.append(entry.note)
    elif entry.note:
        raise ValueError(f"{entry.name} needs no note, since its cause is found")
    return "; ".join(said).replace("|", "\\|")


def _notes(found: Proof) -> str:
    """Return the notes of a proof, without lines of libraries."""
    return "".join(f"; {re.sub(r' [(][^()]*:[0-9]+[)].*', '', note)}" for note in found.notes)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def page() -> str:
    """Judge every entry; return the page."""
    judged: list[str] = []
    tables: list[str] = []
    for name in GROUPS:
        group = import_module(f"docs.entries.{name}")
        rows = [row(*one) for one in entries(group)]
        title = (group.__doc__ or "").splitlines()[0].rstrip(".")
        tables.append("\n".join([f"\n## {title}\n", *COLUMNS, *rows]))
        judged += rows
        jax.clear_caches()
    return "\n".join([head(judged), *tables, ""])


def head(rows: Sequence[str]) -> str:
    """Return what stands above the tables of these rows."""
    counts = [sum(f" | {verdict}" in line for line in rows) for verdict in VERDICTS]
    versions = ", ".join(f"{name} {metadata.version(name).partition('+')[0]}"
                         for name in ("torch", "jax", "flax", "optax"))  # fmt: skip
    words = ("same to rounding", "same with the options shown", "different")
    verdicts = ", ".join(f"{n} {word}" for n, word in zip(counts, words, strict=True))
    return HEAD.format(count=len(rows), versions=versions, verdicts=verdicts).rstrip()


if __name__ == "__main__":
    PAGE.write_text(page())
