"""Both sides in float64, layer by layer: JAX is fed with PyTorch's values at every layer."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from parity.pairs.arrangement import arrangement, distance
from parity.pairs.jax_side import Program
from parity.pairs.jaxprs import Evaluator, Tag, source, widened
from parity.pairs.layers import Layer, products_of
from parity.pairs.pair import PairError
from parity.pairs.patterns import rearranged
from parity.pairs.recorded import OUTPUT, Key, Recorded

LAST_PLACES = 64
"""Units in the last place of an array's largest value that need no further explanation: mistakes
lie 4 to 12 decades above."""
ROUNDING = 1e-11


@dataclass
class Evidence:
    """How far JAX's value is from PyTorch's at one place, and what rounding explains of it."""

    key: Key
    place: int
    shape: tuple[int, ...]
    error: float
    scale: float
    arranged: tuple[str, dict[str, int]] = ("", {})
    """The pattern from PyTorch's layout to JAX's."""
    rounding: float = 0.0
    is_float: bool = True
    own: Any = None
    """JAX's value, kept where it is more than a few last places off."""
    equations: list[Any] = field(default_factory=list)
    """JAX's, evaluated since the layer before."""

    @property
    def size(self) -> float:
        """Of the error relative to scale."""
        return self.error / self.scale if self.scale else (0.0 if self.error == 0 else math.inf)

    @property
    def wrong(self) -> bool:
        """Whether it is more than rounding."""
        return not self.error <= self.rounding


@dataclass
class Forced:
    """JAX's run with PyTorch's values at each shared layer: evidence by place."""

    evidence: dict[tuple[Key, int], Evidence] = field(default_factory=dict)
    uncompared: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    arrangements: dict[tuple[Key, int], tuple[str, dict[str, int]]] = field(default_factory=dict)

    def at(self, key: Key) -> list[Evidence]:
        """Return the evidence of all arrays of a key."""
        return [found for (of, _), found in self.evidence.items() if of == key]

    @property
    def wrong(self) -> list[Evidence]:
        """Those outside rounding."""
        return [found for found in self.evidence.values() if found.wrong]


Around = Callable[[Any, list[Any], Callable[..., list[Any]]], list[Any]]


def force(
    program: Program,
    values: Mapping[str, np.ndarray],
    inputs: Sequence[Any],
    recorded: Recorded,
    layers: Sequence[Layer],
    *,
    around: Around | None = None,
    like: Forced | None = None,
    widen: bool = False,
    as_traced: bool = False,
    keep: bool = False,
) -> Forced:
    """Run JAX's side, each shared layer's inputs and outputs replaced by PyTorch's.

    `like` is an earlier run whose arrangements are used again; `keep` keeps all of JAX's arrays,
    and `as_traced` computes in the types of the program. PairError: other numbers of outputs.
    """
    torch_of = {layer.jax: layer.torch for layer in layers}
    found = Forced()
    used: dict[Key, set[int]] = {}
    window: list[Any] = []

    def match(key: Key, own: Any, *, output: bool = False) -> Any:
        """Compare an array with that of PyTorch's that it should be; return that one."""
        own_array = np.asarray(own, np.float64) if _is_float(own) else np.asarray(own)
        taken = used.setdefault(key, set())
        for place, truth in enumerate(recorded.arrays.get(key, ())):
            if place in taken or truth.size != own_array.size:
                continue
            if (truth.dtype.kind == "f") != _is_float(own):
                continue
            known = like.arrangements.get((key, place)) if like else None
            arranged = known or arrangement(
                truth, own_array, recorded, usual_for(truth.ndim), flat=not output
            )
            if arranged is None:
                continue
            taken.add(place)
            forced = rearranged(truth, *arranged)
            _compare(found, (key, place), own_array, forced, arranged, truth.shape)
            if keep:
                found.evidence[key, place].own = own_array
            found.evidence[key, place].equations = (
                list(window) if found.evidence[key, place].wrong else []
            )
            window.clear()
            return jnp.asarray(forced, np.float64 if widen and _is_float(own) else own.dtype)
        if key[0] != OUTPUT and _is_float(own):
            found.uncompared.append(f"{key[0]}, {key[1]}put of shape {own_array.shape}")
        return own

    def usual_for(rank: int) -> str:
        """Return the last pattern that was certain for this rank."""
        seen = [
            e.arranged[0]
            for e in found.evidence.values()
            if len(e.shape) == rank and e.error <= 1e-9 * e.scale
        ]
        return seen[-1] if seen else ""

    def on_tag(tag: Tag, value: Any) -> Any:
        name = torch_of.get(tag.layer)
        if name is None:
            return value
        if tag.place == 0:
            found.calls[tag.layer] = max(found.calls.get(tag.layer, 0), tag.call + 1)
        return match((name, tag.way, tag.call), value)

    def logged(equation: Any, given: list[Any], evaluate: Callable[..., list[Any]]) -> list[Any]:
        window.append((equation, [_scalar(x) for x in given]))
        return around(equation, given, evaluate) if around else evaluate(*given)

    if widen:
        around = widening(around)
    evaluator = Evaluator(on_tag, logged, products_of(layers), program.names)
    outputs, _ = program.run(evaluator, values, list(inputs), as_traced=as_traced)
    truth = recorded.arrays[OUTPUT, "in", 0]
    if len(outputs) != len(truth):
        raise PairError(
            f"PyTorch returns {len(truth)} arrays and JAX {len(outputs)}; let"
            " call_torch and call_jax return the same ones"
        )
    with jax.enable_x64(not as_traced):
        for place, (own, want) in enumerate(zip(outputs, truth, strict=True)):
            if own.size != want.size:
                raise PairError(
                    f"output {place} is {want.shape} in PyTorch and {own.shape} in JAX,"
                    " which no permutation of axes fits"
                )
            match((OUTPUT, "in", 0), own, output=True)
    return found


def widening(around: Around | None) -> Around:
    """Return what evaluates in float64 what `around` evaluates, or every equation."""

    def both(equation: Any, given: list[Any], _: Callable[..., list[Any]]) -> list[Any]:
        if around is None:
            return widened(equation, given)
        return around(equation, given, lambda *inputs: widened(equation, list(inputs)))

    return both


def _is_float(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jnp.floating)


def _scalar(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 and not isinstance(value, Tracer) else None


def _compare(
    found: Forced,
    at: tuple[Key, int],
    own: np.ndarray,
    forced: np.ndarray,
    arranged: tuple[str, dict[str, int]],
    shape: tuple[int, ...],
) -> None:
    error, scale = distance(own, forced)
    found.arrangements[at] = arranged
    limit = LAST_PLACES * np.finfo(np.float64).eps * scale if own.dtype.kind == "f" else 0.0
    found.evidence[at] = Evidence(
        *at,
        shape,
        error,
        scale,
        arranged,
        limit,
        own.dtype.kind == "f",
        None if error <= limit else own,
    )


def sources(equations: Sequence[Any], *, most: int = 4) -> str:
    """Return the operations of JAX's region with file and line, the most telling first."""
    lines: dict[str, list[str]] = {}
    for equation, _ in equations:
        lines.setdefault(source(equation), []).append(equation.primitive.name)
    parts = [f"{', '.join(dict.fromkeys(names))} ({line})" for line, names in lines.items()]
    return "; ".join(parts[-most:])
