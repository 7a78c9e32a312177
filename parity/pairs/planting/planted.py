"""Trust: mistakes are planted into the user's own JAX program, and must be seen.

All of them in one run. Beside each value goes what it is with each mistake that reaches it, until
the next layer, where PyTorch's value takes its place: there it must be off by more than rounding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from parity.pairs.case import Case
from parity.pairs.forward.evidence import limit
from parity.pairs.forward.forced import Feeder
from parity.pairs.jax_side.definitions import Definitions, call_path
from parity.pairs.jax_side.evaluator import Evaluator
from parity.pairs.jax_side.jaxprs import Tag, bind
from parity.pairs.jax_side.precisions import widened
from parity.pairs.jax_side.sources import source
from parity.pairs.mapping.arrangement import arrangement, distance
from parity.pairs.mapping.layers import products_of
from parity.pairs.mapping.patterns import rearranged
from parity.pairs.planting.mistakes import Site, mistakes
from parity.pairs.torch_side.recorded import OUTPUT, Key


@dataclass(eq=False)
class Plant:
    """One mistake at one equation."""

    mistake: str
    equation: JaxprEqn
    source: str
    """File and line of the equation."""
    compute: Callable[..., list[Any]]
    fits: bool = True
    """Whether the equation could be computed with it, in the shapes that it has."""
    felt: bool = False
    """Whether it changes what a layer or the output gets by more than a few last places."""
    seen: bool = False
    """Whether that is more than the proof lets rounding explain."""

    def __str__(self) -> str:
        return f"{self.mistake} ({self.source})"


class Branches:
    """A value, and what it is with each planted mistake that reaches it."""

    def __init__(self, base: Any, others: dict[Plant, Any]) -> None:
        self.base, self.others = base, others

    def __getitem__(self, index: Any) -> "Branches":
        return Branches(self.base[index], {p: x[index] for p, x in self.others.items()})

    def __bool__(self) -> bool:  # the condition of a loop
        return bool(self.base)

    def __int__(self) -> int:  # the number of a branch
        return int(self.base)


def planted(case: Case) -> list[Plant]:
    """Plant each mistake that applies into JAX's program, and say which of them the proof sees.

    A line that several layers of the same code run gets it in the first of them.
    """
    run = _Run(case)
    run()
    return run.plants


def counts(plants: Sequence[Plant], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many mistakes are found of those that change anything, and which are not."""
    felt = [plant for plant in plants if plant.felt]
    own = {
        "found": sum(plant.seen for plant in felt),
        "of": len(felt),
        "not found": [str(plant) for plant in felt if not plant.seen],
        "without effect": [str(plant) for plant in plants if plant.fits and not plant.felt],
        "not planted": [str(plant) for plant in plants if not plant.fits],
    }
    return {name: more[name] + value if more else value for name, value in own.items()}


class _Run:
    def __init__(self, case: Case) -> None:
        self.plants: list[Plant] = []
        self._case = case
        self._at: dict[tuple[int, ...], list[Plant]] = {}
        """The plants of an equation and its callers, which may be evaluated often, as in a loop."""
        self._sites: set[tuple[Any, ...]] = set()
        """The code that leads to an equation: layers of the same code have the same."""
        self._left_out = {accept.name for accept in case.pair.accept}
        if case.program.single or case.pair.dtype != "float32":
            self._left_out.add("low-precision")  # which is no difference then
        self._program = Definitions(case.program.jaxpr, len(case.program.names))
        self._feeder = Feeder(
            case.recorded, case.layers, None, case.forced, widen=case.widen, keep=False
        )
        self._evaluator = Evaluator(
            self._on_tag, self._around, products_of(case.layers), case.program.names, _stacked
        )

    def __call__(self) -> None:
        case, program = self._case, self._case.program
        outputs, _ = program.run(self._evaluator, case.jax_values, list(case.pair.inputs))
        with jax.enable_x64(True):
            for value in outputs:
                self._match((OUTPUT, "in", 0), value, output=True)

    def _around(
        self, equation: JaxprEqn, given: list[Any], _: Callable[..., list[Any]]
    ) -> list[Any]:
        base = [x.base if isinstance(x, Branches) else x for x in given]
        made = self._evaluate(equation, base)
        own = self._plants(equation)
        live = {p: None for x in given if isinstance(x, Branches) for p in x.others}
        found: dict[Plant, list[Any]] = {}
        for plant in dict.fromkeys([*live, *own]):
            inputs = [x.others.get(plant, x.base) if isinstance(x, Branches) else x for x in given]
            other = (
                self._mistaken(plant, inputs, made)
                if plant in own
                else self._evaluate(equation, inputs)
            )
            if not all(_equal(a, b) for a, b in zip(other, made, strict=True)):
                found[plant] = other
        return [_branched(x, {p: o[n] for p, o in found.items()}) for n, x in enumerate(made)]

    def _mistaken(self, plant: Plant, given: list[Any], like: list[Any]) -> list[Any]:
        """Return what an equation computes with a mistake, or without one that does not fit."""
        try:
            made = plant.compute(*given)
        except (TypeError, ValueError, IndexError):
            made = []
        plant.fits = [np.shape(x) for x in made] == [np.shape(x) for x in like]
        if not plant.fits:
            return like
        return [jnp.asarray(x, own.dtype) for x, own in zip(made, like, strict=True)]

    def _evaluate(self, equation: JaxprEqn, given: list[Any], **changed: Any) -> list[Any]:
        if changed:
            equation = equation.replace(params={**equation.params, **changed})
        return widened(equation, given) if self._case.widen else bind(equation, given)

    def _plants(self, equation: JaxprEqn) -> list[Plant]:
        chain = (*self._evaluator.callers, equation)
        known = self._at.get(tuple(map(id, chain)))
        if known is not None:
            return known
        plants = self._at[tuple(map(id, chain))] = []
        inside = map(self._program.number, chain[1:])
        path = (call_path(chain[0]), *inside, equation.primitive.name)

        def compute(given: list[Any], **changed: Any) -> list[Any]:
            return self._evaluate(equation, given, **changed)

        line = next(filter(None, map(source, reversed(chain))), "")
        for name, other in mistakes(Site(equation, self._program, compute)):
            if name not in self._left_out and (path, name) not in self._sites:
                plants.append(Plant(name, equation, line, other))
        self._sites.update((path, plant.mistake) for plant in plants)
        self.plants += plants
        return plants

    def _on_tag(self, tag: Tag, value: Any) -> Any:
        key = self._feeder.key(tag)
        return value if key is None else self._match(key, value)

    def _match(self, key: Key, value: Any, *, output: bool = False) -> Any:
        """Compare each branch with PyTorch's array, which takes its place in the same layout."""
        base = value.base if isinstance(value, Branches) else value
        before = set(self._feeder.found.evidence)
        forced = self._feeder.match(key, base, output=output)
        if not isinstance(value, Branches):
            return forced
        new = [at for at in self._feeder.found.evidence if at not in before]
        if not new:  # nothing of PyTorch's to compare with
            return value
        (at,) = new
        others = {}
        for plant, other in value.others.items():
            layout = self._judge(plant, other, at, output=output)
            if layout is not None and not _equal(layout, forced):
                others[plant] = jnp.asarray(layout, forced.dtype)
        return _branched(forced, others)

    def _judge(
        self, plant: Plant, value: Any, at: tuple[Key, int], *, output: bool
    ) -> np.ndarray | None:
        """Compare a branch with PyTorch's array; return that in the branch's layout, if it is one.

        In another layout than that without the mistake it is no difference yet: the layer shows it.
        """
        recorded, judged = self._case.recorded, self._case.forced.evidence[at]
        truth = recorded.arrays[at[0]][at[1]]
        array = np.asarray(value, np.float64) if judged.is_float else np.asarray(value)
        arranged = self._feeder.found.arrangements[at]
        if not output:
            arranged = arrangement(truth, array, recorded, arranged[0], flat=True)
        if arranged is None:
            plant.felt = plant.seen = True
            return None
        layout = rearranged(truth, *arranged)
        error, scale = distance(array, layout)
        more = abs(error - judged.error) if judged.wrong else error
        plant.felt = plant.felt or bool(more > (limit(scale) if judged.is_float else 0))
        plant.seen = plant.seen or bool(more > judged.rounding)
        return None if plant.felt else layout


def _branched(base: Any, others: dict[Plant, Any]) -> Any:
    others = {p: x for p, x in others.items() if not p.felt and not _equal(x, base)}
    return Branches(base, others) if others else base


def _equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if jnp.issubdtype(jnp.result_type(b), jax.dtypes.prng_key):
        return True
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(b).dtype.kind == "f")


def _stacked(parts: Sequence[Any]) -> Any:
    """Stack values of the steps of a loop."""
    base = jnp.stack([x.base if isinstance(x, Branches) else x for x in parts])
    live = {p: None for x in parts if isinstance(x, Branches) for p in x.others}

    def with_(plant: Plant) -> Iterator[Any]:
        for x in parts:
            yield x.others.get(plant, x.base) if isinstance(x, Branches) else x

    return _branched(base, {plant: jnp.stack(list(with_(plant))) for plant in live})
