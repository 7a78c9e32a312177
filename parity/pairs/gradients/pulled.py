"""JAX's gradients in float64: of leaves, inputs, and each value at a layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity.pairs.case import Case
from parity.pairs.gradients.pullbacks import At, Truth
from parity.pairs.jax_side.evaluator import Evaluator, Values
from parity.pairs.jax_side.jaxprs import Tag, is_literal
from parity.pairs.jax_side.program import wide
from parity.pairs.mapping.layers import products_of
from parity.pairs.mapping.patterns import inverse, rearranged
from parity.pairs.memory import trim
from parity.pairs.torch_side.recorded import OUTPUT, Key


@dataclass
class _Block:
    """Some equations of JAX's program, as they were run."""

    run: Callable[[Values], Values]
    given: Values
    taps: list[At]
    used: dict[Key, int]
    """How many arrays of each layer were seen before."""


class Pulled:
    """JAX's gradients, each region fed with PyTorch's at its end.

    They are taken block by block, from the last to the first, so that what derivatives need of the
    program's values is held for one block only.
    """

    def __init__(
        self, case: Case, truth: Truth, cotangents: Sequence[np.ndarray], around: Any
    ) -> None:
        self._case, self._truth = case, truth
        self._torch_of = {layer.jax: layer.torch for layer in case.layers}
        self._places: dict[Key, list[int]] = {}
        for key, place in case.forced.evidence:
            self._places.setdefault(key, []).append(place)
        self._blocks: list[_Block] = []
        self._used: dict[Key, int] = {}
        self._taps: dict[At, Any] = {}
        """What the regions begin with that a block touches."""
        self._ends: dict[At, Any] = {}
        """What the regions end with that end in a block."""
        self.values: dict[At, np.ndarray] = {}
        program = case.program
        variables = program.jaxpr.jaxpr.invars
        with jax.enable_x64(True):
            values = case.jax_values
            args = [jnp.asarray(values[name]) for name in program.names]
            for x, var in zip(case.pair.inputs, variables[len(args) :], strict=True):
                x = jnp.asarray(wide(x))
                args.append(x if _is_float(x) else x.astype(var.aval.dtype))
            products = products_of(case.layers)
            evaluator = Evaluator(
                self._on_tag, around, products, program.names, block=self._remembered
            )
            outputs = evaluator(program.jaxpr, *args)[: program.outputs]
            self._gradients: Values = {}
            ends = zip(program.jaxpr.jaxpr.outvars, outputs, cotangents, strict=False)
            for number, (var, x, cotangent) in enumerate(ends):
                if _is_float(x) and not is_literal(var):
                    arranged = case.forced.arrangements[(OUTPUT, "in", 0), number]
                    self._add(var, jnp.asarray(rearranged(cotangent, *arranged), x.dtype))
            floats = [_is_float(x) for x in args]
            del args, outputs, values  # which the blocks hold that need them
            while self._blocks:
                self._pull(self._blocks.pop())
        found = [
            np.asarray(self._gradients.pop(var), np.float64)
            if var in self._gradients
            else np.zeros(var.aval.shape)
            for var in variables
        ]
        count = len(program.names)
        self.leaves = dict(zip(program.names, found, strict=False))
        self.inputs = {i: found[count + i] for i, moves in enumerate(floats[count:]) if moves}
        for (key, place), evidence in case.forced.evidence.items():
            if key[0] != OUTPUT and evidence.is_float:
                self.values.setdefault((key, place), np.zeros(evidence.shape))

    def _add(self, var: Any, gradient: Any) -> None:
        known = self._gradients.get(var)
        self._gradients[var] = gradient if known is None else known + gradient

    def _remembered(self, run: Callable[[Values], Values], given: Values) -> Values:
        """Run a block, and keep what it takes to run it again."""
        used = dict(self._used)
        self._taps, self._ends = {}, {}
        found = run(given)
        jax.block_until_ready(list(found.values()))  # else arrays wait for what is computed later
        self._blocks.append(_Block(run, given, list(self._taps), used))
        return found

    def _pull(self, block: _Block) -> None:
        """Add the gradients of what a block takes, from those of what it makes."""
        moving = [var for var, x in block.given.items() if jnp.issubdtype(x.dtype, jnp.inexact)]
        made: list[Any] = []

        def run(xs: list[Any], taps: list[Any]) -> tuple[list[Any], list[Any]]:
            self._used, self._ends = dict(block.used), {}
            self._taps = dict(zip(block.taps, taps, strict=True))
            found = block.run({**block.given, **dict(zip(moving, xs, strict=True))})
            made[:] = [var for var in found if var in self._gradients]
            return [found[var] for var in made], list(self._ends.values())

        taps = [self._tap(at) for at in block.taps]
        (_, ends), pull = jax.vjp(run, [block.given[var] for var in moving], taps)
        known = zip(self._ends, ends, strict=True)
        given, tapped = pull(
            ([self._gradients.pop(var) for var in made], [self._end(at, x) for at, x in known])
        )
        for var, gradient in zip(moving, jax.block_until_ready(given), strict=True):
            self._add(var, gradient)
        for at, gradient in zip(block.taps, tapped, strict=True):
            pattern, sizes = self._case.forced.arrangements[at]
            value = rearranged(np.asarray(gradient, np.float64), inverse(pattern), dict(sizes))
            self.values[at] = self.values[at] + value if at in self.values else value
        trim()

    def _on_tag(self, tag: Tag, value: Any) -> Any:
        """Return what a region begins with in place of what the one before it ends with."""
        forced = self._case.forced
        key = (self._torch_of.get(tag.layer, ""), tag.way, tag.call)
        if (key, tag.place) in forced.again:
            return self._begun((key, forced.again[key, tag.place])).astype(value.dtype)
        places, number = self._places.get(key, ()), self._used.get(key, 0)
        if number >= len(places):
            return value
        at = (key, places[number])
        if value.size != int(np.prod(forced.evidence[at].shape)):
            return value
        self._used[key] = number + 1
        if not forced.evidence[at].is_float:
            return self._tap(at).astype(value.dtype)
        self._ends[at] = value
        return self._begun(at)

    def _begun(self, at: At) -> Any:
        if at not in self._taps:
            self._taps[at] = self._tap(at)
        return self._taps[at]

    def _tap(self, at: At) -> Any:
        truth = self._case.recorded.arrays[at[0]][at[1]]
        truth = ~truth if at in self._case.forced.opposite else truth
        return jnp.asarray(rearranged(truth, *self._case.forced.arrangements[at]))

    def _end(self, at: At, like: Any) -> Any:
        """Return PyTorch's gradient of what a region ends with."""
        gradient = self._truth.values.get(at)
        if gradient is None:
            return jnp.zeros_like(like)
        return jnp.asarray(rearranged(gradient, *self._case.forced.arrangements[at]), like.dtype)


def _is_float(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jnp.floating)
