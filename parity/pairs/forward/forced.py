"""Both sides in float64, layer by layer: JAX is fed with PyTorch's values at every layer."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from parity.pairs.forward.evidence import Evidence, Forced, Made, limit
from parity.pairs.jax_side.evaluator import Evaluator
from parity.pairs.jax_side.jaxprs import Tag
from parity.pairs.jax_side.precisions import widened
from parity.pairs.jax_side.program import Program
from parity.pairs.mapping.arrangement import arrangement, distance
from parity.pairs.mapping.layers import Layer, products_of
from parity.pairs.mapping.patterns import patterns, rearranged
from parity.pairs.pair import PairError
from parity.pairs.torch_side.recorded import OUTPUT, Key, Recorded

ROUNDING = 1e-11


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
    around = widening(around) if widen else around
    feeder = Feeder(recorded, layers, around, like, widen=widen, keep=keep)
    evaluator = Evaluator(
        feeder.on_tag,
        feeder.around,
        products_of(layers),
        program.names,
        linked=feeder.linked,
        callers=feeder.callers,
    )
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
            feeder.match((OUTPUT, "in", 0), own, output=True)
    return feeder.found


class Feeder:
    """Compares JAX's values at layers with PyTorch's as they are made, and puts these in place."""

    def __init__(
        self,
        recorded: Recorded,
        layers: Sequence[Layer],
        around: Around | None,
        like: Forced | None,
        *,
        widen: bool,
        keep: bool,
    ) -> None:
        self.found = Forced()
        self._recorded, self._like, self._around = recorded, like, around
        self._torch_of = {layer.jax: layer.torch for layer in layers}
        self._widen, self._keep = widen, keep
        self._used: dict[Key, set[int]] = {}
        self.callers: list[Any] = []
        self._log: list[Made] = []
        self._made: dict[int, tuple[Any, frozenset[int]]] = {}
        """By an array's identity: the array, held weakly, and what made it."""

    def on_tag(self, tag: Tag, value: Any) -> Any:
        """Return PyTorch's array in place of JAX's, at a shared layer."""
        if tag.layer in self._torch_of and tag.place == 0:
            calls = self.found.calls
            calls[tag.layer] = max(calls.get(tag.layer, 0), tag.call + 1)
        key = self.key(tag)
        return value if key is None else self.match(key, value, number=tag.place)

    def key(self, tag: Tag) -> Key | None:
        """Return where PyTorch's array is recorded, if the layer is shared."""
        name = self._torch_of.get(tag.layer)
        return None if name is None else (name, tag.way, tag.call)

    def around(
        self, equation: Any, given: list[Any], evaluate: Callable[..., list[Any]]
    ) -> list[Any]:
        """Evaluate an equation, and remember it."""
        parents = frozenset().union(*map(self._makers, given))
        numbers = tuple(map(_scalar, given))
        self._log.append(Made(equation, numbers, tuple(self.callers), parents))
        made = self._around(equation, given, evaluate) if self._around else evaluate(*given)
        for x in made:
            self._remember(x, frozenset({len(self._log) - 1}))
        return made

    def linked(self, value: Any, parts: Sequence[Any]) -> None:
        """Remember that an array is made of others."""
        self._remember(value, frozenset().union(*map(self._makers, parts)))

    def _remember(self, value: Any, makers: frozenset[int]) -> None:
        held = weakref.ref(value) if isinstance(value, jax.Array) else lambda: value
        self._made[id(value)] = held, makers

    def _makers(self, value: Any) -> frozenset[int]:
        known, makers = self._made.get(id(value), (lambda: None, frozenset()))
        return makers if known() is value else frozenset()

    def _slice(self, value: Any) -> list[Made]:
        """Return the equations that an array is made by, since the layers before it."""
        todo, found = list(self._makers(value)), set[int]()
        while todo:
            number = todo.pop()
            if number not in found:
                found.add(number)
                todo += self._log[number].parents
        return [self._log[number] for number in sorted(found)]

    def match(self, key: Key, own: Any, *, number: int = 0, output: bool = False) -> Any:
        """Compare an array with that of PyTorch's that it should be; return that one."""
        own_array = np.asarray(own, np.float64) if _is_float(own) else np.asarray(own)
        taken = self._used.setdefault(key, set())
        for place, truth in enumerate(self._recorded.arrays.get(key, ())):
            if place in taken or truth.size != own_array.size:
                continue
            if (truth.dtype.kind == "f") != _is_float(own):
                continue
            known = self._like.arrangements.get((key, place)) if self._like else None
            if output and truth.shape == own_array.shape:  # another order is a difference there
                known = next(patterns(truth.shape, truth.shape))
            arranged = known or arrangement(
                truth, own_array, self._recorded, self._usual(truth.ndim), flat=not output
            )
            if arranged is None:
                continue
            taken.add(place)
            forced = rearranged(truth, *arranged)
            if forced.dtype == own_array.dtype == bool and np.array_equal(
                forced, np.logical_not(own_array)
            ):
                forced = own_array  # the layer shows who is right
                self.found.opposite.add((key, place))
            evidence = _compared((key, place), own_array, forced, arranged, truth.shape)
            self.found.arrangements[key, place] = arranged
            self.found.evidence[key, place] = evidence
            if self._keep:
                evidence.own = own_array
            evidence.equations = self._slice(own) if evidence.wrong else []
            return self._placed(forced, own)
        if (forced := self._again(key, number, own_array)) is not None:
            return self._placed(forced, own)
        if key[0] != OUTPUT and _is_float(own):
            self.found.uncompared.append(f"{key[0]}, {key[1]}put of shape {own_array.shape}")
        return own

    def _placed(self, forced: np.ndarray, own: Any) -> Any:
        return jnp.asarray(forced, np.float64 if self._widen and _is_float(own) else own.dtype)

    def _again(self, key: Key, number: int, own: np.ndarray) -> np.ndarray | None:
        """Return what was put in place of the same array, where a layer is given it once more.

        It is the same if it is as far from PyTorch's, to the bit; another run knows from the first.
        """
        for place in self._used[key]:
            forced = rearranged(
                self._recorded.arrays[key][place], *self.found.arrangements[key, place]
            )
            if self._like:
                same = self._like.again.get((key, number)) == place
            else:
                same = forced.shape == own.shape and own.dtype.kind == "f"
                same = same and distance(own, forced)[0] == self.found.evidence[key, place].error
            if same:
                self.found.again[key, number] = place
                return forced
        return None

    def _usual(self, rank: int) -> str:
        """Return the last pattern that was certain for this rank."""
        seen = [
            e.arranged[0]
            for e in self.found.evidence.values()
            if len(e.shape) == rank and e.error <= 1e-9 * e.scale
        ]
        return seen[-1] if seen else ""


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
    if np.ndim(value) or isinstance(value, Tracer):
        return None
    is_key = jnp.issubdtype(jnp.result_type(value), jax.dtypes.prng_key)
    return None if is_key or np.iscomplexobj(value) else float(value)


def _compared(
    at: tuple[Key, int],
    own: np.ndarray,
    forced: np.ndarray,
    arranged: tuple[str, dict[str, int]],
    shape: tuple[int, ...],
) -> Evidence:
    error, scale = distance(own, forced)
    is_float = own.dtype.kind == "f"
    few = limit(scale) if is_float else 0.0
    kept = None if error <= few else own
    return Evidence(*at, shape, error, scale, arranged, few, is_float, kept)
