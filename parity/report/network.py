"""What a proof's page shows: layers as rows, each error with its place on a logarithmic scale."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from parity.pairs.proof import Difference, LayerEvidence, Proof

DECADES = (-17, 0)
"""Powers of ten at the ends of the scale: under float64's rounding, and as large as the values."""


class Error(NamedTuple):
    """An error over scale, and how it is drawn: places go from 0 to 1 along the scale."""

    text: str
    place: float | None
    """None: there is nothing to draw."""
    limit: float
    """Up to where rounding explains it."""
    kind: Literal["right", "accepted", "wrong", "unknown"]


class Row(NamedTuple):
    """A layer with its errors, and the numbers of the differences that are found there."""

    torch: str
    jax: str
    shape: str
    before: Error
    inside: Error
    differences: Sequence[int]


def error(size: float | None, rounding: float, *, accepted: bool = False) -> Error:
    """Return an error as it is drawn; None is one that could not be compared."""
    limit = _place(rounding)
    if size is None:
        return Error("not compared", None, limit, "unknown")
    text = "not finite" if not math.isfinite(size) else f"{size:.1e}" if size else "exact"
    if size <= rounding:
        return Error(text, _place(size), limit, "right")
    return Error(text, _place(size), limit, "accepted" if accepted else "wrong")


def _place(size: float) -> float:
    low, high = DECADES
    if not size > 0:  # nan is as far off as inf
        return 1.0 if math.isnan(size) else 0.0
    power = math.log10(size) if math.isfinite(size) else high
    return (min(max(power, low), high) - low) / (high - low)


def rows(proof: Proof) -> Iterator[Row]:
    """Yield the layers in the order of the network."""
    found: dict[tuple[str, str], list[int]] = {}
    for number, one in enumerate(proof.differences, 1):
        for at in _places(one):
            found.setdefault(at, []).append(number)
    for layer in proof.layers:
        numbers = {
            kind: found.get((kind, _plain(layer.torch)), []) for kind in ("between", "inside")
        }
        before, inside = (
            _error(layer, size, [proof.differences[n - 1] for n in numbers[kind]])
            for kind, size in (("between", layer.before), ("inside", layer.inside))
        )
        shape = " × ".join(map(str, layer.shape))
        every = sorted({n for group in numbers.values() for n in group})
        yield Row(layer.torch, layer.jax, shape, before, inside, every)


def _error(layer: LayerEvidence, size: float | None, here: Sequence[Difference]) -> Error:
    meant = bool(here) and all(one.accepted is not None for one in here)
    return error(size, layer.rounding, accepted=meant)


def _places(one: Difference) -> Iterator[tuple[str, str]]:
    """Yield kind and PyTorch's name of each layer that a difference is in, or before."""
    for place in (one.torch, *one.also):
        last = place if isinstance(place, str) else place[1]
        yield one.kind, _plain(last.split(" and ")[-1])


def _plain(name: str) -> str:
    """Return the module's name; the proof calls part i of n of it `name#i/n`, several `a+b`."""
    return name.split("#")[0].split("+")[-1]


def facts(one: Difference) -> dict[str, str]:
    """Return the evidence of a difference by name, without what is not known of it."""
    theirs = one.jax if isinstance(one.jax, str) else " and ".join(one.jax)
    values = {
        "stage": one.stage,
        "JAX's name": theirs,
        "size": f"{one.size:.1e} of scale; rounding: {one.rounding:.0e}",
        "accepted": one.accepted,
        "cause": one.cause or "not in the catalogue",
        "in words": one.explanation,
        "fix": one.fix,
        "PyTorch": one.torch_source,
        "JAX": one.jax_source,
        "also at": ", ".join(one.also),
    }
    return {name: value for name, value in values.items() if value}


def spoken(value: Any) -> str:
    """Return a value of the coverage in words."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {spoken(item)}" for name, item in value.items()) or "nothing"
    if isinstance(value, list | tuple):
        return "; ".join(map(spoken, value)) or "nothing"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
