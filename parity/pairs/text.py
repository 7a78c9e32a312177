"""A proof as text of at most 80 columns."""

import textwrap
from collections.abc import Iterator, Sequence

from parity.contract.cli.tables import aligned
from parity.pairs.proof import Difference, MapRow, Proof

WIDTH = 80


def lines(proof: Proof) -> Iterator[str]:
    """Yield the parts of a proof, each difference with its evidence, and the notes."""
    numbers = {id(one): number for number, one in enumerate(proof.differences, 1)}
    for part, said in proof.summary.items():
        yield from _wrapped(f"{part:<11}{said}", 11)
        for one in proof.differences:
            if one.stage == part:
                yield from _difference(one, numbers[id(one)])
    for note in proof.notes:
        yield from _wrapped(f"  note  {note}", 8)
    for leaf in proof.coverage.get("unmapped", ()):
        yield from _wrapped(f"  not mapped: {leaf}", 8)


def _difference(one: Difference, number: int) -> Iterator[str]:
    more = f" (also {', '.join(one.also[:3])}{' …' * (len(one.also) > 3)})" if one.also else ""
    yield from _wrapped(f"  {number}  {one.where}{more}", 5)
    yield f"     {one.size:.1e} of scale; rounding: {one.rounding:.0e}"
    if one.accepted:
        said = "" if one.accepted == "accepted" else f": {one.accepted}"
        yield from _wrapped(f"     accepted{said}", 7)
    if one.explanation:
        yield from _wrapped(f"     {one.explanation}", 7)
    for side, source in (("PyTorch", one.torch_source), ("JAX", one.jax_source)):
        if source:
            yield from _wrapped(f"     {side}: {source}", 7)
    if one.cause:
        fix = f"; {one.fix}" if one.fix else ""
        yield from _wrapped(f"     cause: {one.cause}{fix}", 7)
    elif not one.accepted:
        yield "     cause: not in the catalogue"


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=" " * indent, drop_whitespace=True, break_on_hyphens=False
    ) or [""]


def map_lines(rows: Sequence[MapRow]) -> list[str]:
    """Return the map as a table: PyTorch's leaf, JAX's, the pattern, and how it was found."""

    def name(leaf: str, part: tuple[int, int, int] | None) -> str:
        return f"{leaf} [{part[0] + 1} of {part[1]}, axis {part[2]}]" if part else leaf

    table = [("PyTorch", "JAX", "pattern", "found by")]
    for row in rows:
        ours, theirs = name(row.torch, row.torch_part), name(row.jax, row.jax_part)
        table.append((ours, theirs, row.pattern, row.how))
    return aligned(table, left=4)
