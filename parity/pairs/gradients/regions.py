"""Gradients in float64: the same cotangent through both sides, region by region."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from parity.pairs.case import Case
from parity.pairs.forward.forced import ROUNDING, widening
from parity.pairs.forward.places import place_of
from parity.pairs.gradients.pullbacks import At, Truth
from parity.pairs.gradients.pulled import Pulled
from parity.pairs.jax_side.jaxprs import bind, equations
from parity.pairs.mapping.arrangement import distance
from parity.pairs.mapping.layers import plain
from parity.pairs.mapping.maps import part_of
from parity.pairs.memory import trim
from parity.pairs.pair import PairError
from parity.pairs.proof import Difference, Kind, MapRow, Place
from parity.pairs.torch_side.operations import user_source
from parity.pairs.torch_side.recorded import OUTPUT, Key


def gradient_differences(case: Case, seed: int) -> tuple[list[Difference], int]:
    """Compare each region's gradients; return the differences, and how many were compared."""
    rng = np.random.default_rng(seed + 1)
    cotangents = [rng.normal(size=array.shape) for array in case.recorded.arrays[OUTPUT, "in", 0]]
    if not any(array.dtype.kind == "f" for array in case.recorded.arrays[OUTPUT, "in", 0]):
        return [], 0
    around = widening(None) if case.widen else None
    truth = Truth(case, cotangents)
    frozen = [row.torch for row in case.map.rows if row.torch in case.torch.frozen]
    if frozen:
        named = ", ".join(frozen[:3]) + ", …" * (len(frozen) > 3)
        case.notes.append(f"PyTorch takes no gradient of {named}; JAX's is not compared")
    trim()
    pulled = Pulled(case, truth, cotangents, around)
    wrong = _wrong(case, truth, pulled)
    if wrong and case.tables:
        with case.shaken():
            wrong = _wrong(case, truth, pulled, Truth(case, cotangents))
    compared = len(pulled.values) + len(pulled.leaves) + len(pulled.inputs)
    if not wrong:
        return [], compared
    cause = _cause(case, truth, cotangents, around, wrong)
    found = []
    for (kind, ours, theirs), size in wrong.items():
        found.append(
            Difference(
                stage="gradients",
                kind=kind,
                torch=ours,
                jax=theirs,
                size=size,
                rounding=ROUNDING,
                cause=cause[0],
                explanation=cause[1],
                fix=cause[2],
            )
        )
    return found, compared


Where = tuple[Kind, Place, Place]
DETACHES = 8
"""How many calls of `detach` and `no_grad` are left out one by one, for one that JAX lacks."""


def _wrong(
    case: Case, truth: Truth, pulled: Pulled, shaken: Truth | None = None
) -> dict[Where, float]:
    """Return the places where gradients differ, and by how much of their scale.

    `shaken` has them with PyTorch's tables moved within float32, which excuses as much.
    """
    found: dict[Where, float] = {}

    def enter(
        where: Where, own: np.ndarray, want: np.ndarray, scale: float, moved: np.ndarray | None
    ) -> None:
        error, own_scale = distance(own, want)
        size = error / max(scale, own_scale)
        if moved is not None and size <= 2.0**-16 and error <= 8 * distance(moved, want)[0]:
            return
        if not size <= 10 * ROUNDING:
            found[where] = max(found.get(where, 0.0), size)

    scales: dict[Key, float] = {}
    for (key, _), want in truth.values.items():
        scales[key] = max(scales.get(key, 0.0), float(np.abs(want).max(initial=0)))
    for at, own in _joined(pulled).items():
        want = truth.values.get(at, np.zeros(own.shape))
        layer, _, call = at[0]
        every = [scales.get((layer, way, call), 0.0) for way in ("in", "out")]
        scale = scales.get(at[0], 0.0)
        if scale < 1e-12 * max(every):  # it cancels to nothing
            scale = max(every)
        enter(_behind(case, at[0]), own, want, scale, shaken and shaken.values.get(at))
    for place, own in pulled.inputs.items():
        given = truth.inputs[place]
        if given is not None:
            moved = shaken and shaken.inputs[place]
            enter(_behind(case, ("input", "out", 0)), own, given, 0.0, moved)
    for row in case.map.rows:
        if row.torch not in truth.leaves or row.jax not in pulled.leaves:
            continue
        own = case.map.to_torch(row, pulled.leaves[row.jax])
        moved = shaken and part_of(shaken.leaves[row.torch], row.torch_part)
        want = part_of(truth.leaves[row.torch], row.torch_part)
        enter(_of_leaf(case, row), own, want, _largest(truth, row), moved)
    return found


def _joined(pulled: Pulled) -> dict[At, np.ndarray]:
    """Return JAX's gradients of values; those of what parts of one layer are given are added up."""
    joined: dict[At, np.ndarray] = {}
    for (key, place), own in pulled.values.items():
        layer, way, call = key
        if "#" in layer and way == "in":
            first = ("{}#0/{}".format(layer.split("#")[0], layer.split("/")[1]), way, call), place
            joined[first] = joined.get(first, 0) + own
        else:
            joined[key, place] = own
    return joined


def _largest(truth: Truth, row: MapRow) -> float:
    """Return the largest gradient of a leaf's layer."""
    owner = row.torch.rpartition(".")[0]
    sizes = (
        float(np.abs(gradient).max(initial=0))
        for name, gradient in truth.leaves.items()
        if name.rpartition(".")[0] == owner
    )
    return max(sizes, default=0.0)


def _of_leaf(case: Case, row: MapRow) -> Where:
    """Return where the gradient of a leaf is made: in its layer, or in the code from the input."""
    owner = row.torch.rpartition(".")[0]
    for layer in case.layers:
        name = plain(layer.torch)
        if owner == name or owner.startswith(name + "."):
            return "inside", name, layer.jax
    return "between", ("input", row.torch), ("input", row.jax)


def _behind(case: Case, key: Key) -> Where:
    """Return where the gradient of a value is made: in its layer, or in the code behind it."""
    layer, way, _ = key
    names = {known.torch: known.jax for known in case.layers}
    if way == "in":
        return "inside", plain(layer), names[layer]
    mark = f"{plain(layer)}:out" if layer != "input" else "input"
    for other in case.recorded.arrays:
        if (other[0] in names or other[0] == OUTPUT) and other[1] == "in":
            _, before = case.recorded.slice(other)
            if any(
                name == mark or (mark == "input" and name.startswith("input")) for name in before
            ):
                first = plain(layer), plain(other[0])
                return "between", first, (names.get(layer, layer), names.get(other[0], other[0]))
    return place_of(case, (OUTPUT, "in", 0))


def _cause(
    case: Case,
    truth: Truth,
    cotangents: Sequence[np.ndarray],
    around: Any,
    wrong: dict[Where, float],
) -> tuple[str | None, str, str | None]:
    """Return cause, explanation and fix of gradients that differ where values do not."""

    def without(*names: str) -> Any:
        def evaluate(equation: Any, given: list[Any], compute: Any) -> list[Any]:
            if equation.primitive.name in names:
                return given[:1]
            return around(equation, given, compute) if around else bind(equation, given)

        return evaluate

    names = {equation.primitive.name for equation in equations(case.program.jaxpr)}
    line = _stopped(case, truth, cotangents, around)
    if line is not None:
        return (
            "stop-gradient",
            "PyTorch stops the gradient where JAX does not" + f" ({line})" * bool(line),
            "jax.lax.stop_gradient where PyTorch detaches",
        )
    if "stop_gradient" in names:
        freed = Pulled(case, truth, cotangents, without("stop_gradient"))
        if len(_wrong(case, truth, freed)) < len(wrong):
            return (
                "stop-gradient",
                "JAX stops the gradient where PyTorch does not",
                "leave jax.lax.stop_gradient out",
            )
    own = any(name.startswith("custom_") for name in names)
    if own and not _wrong(case, truth, Pulled(case, truth, cotangents, without())):
        return (
            "custom-derivative",
            "JAX has a derivative of its own (custom_jvp or custom_vjp)",
            "write the derivative that PyTorch computes",
        )
    for first in (True, False) if names & {"max", "min"} else ():
        if not _wrong(case, truth, Pulled(case, truth, cotangents, _untied(first, without()))):
            return (
                "tie",
                "of two equal numbers each gets half of the gradient in JAX, one all in PyTorch",
                "jax.nn.relu(x), or jnp.where(x > y, x, y), in JAX",
            )
    return None, "", None


def _stopped(case: Case, truth: Truth, cotangents: Sequence[np.ndarray], around: Any) -> str | None:
    """Return the line where PyTorch stops a gradient, if JAX's gradients are those without it.

    A recording has no line.
    """
    for only in (*range(DETACHES), None):
        with _undetached(only) as undone:
            try:
                loose = Truth(case, cotangents, inputs_too=truth.inputs_too)
            except (PairError, RuntimeError):  # what is changed in place needs its no_grad
                continue
            finally:
                case.torch.settle(case.values)
        if undone and not _wrong(case, loose, Pulled(case, loose, cotangents, around)):
            return undone[0]
    return None


def _untied(first: bool, evaluate: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Return what gives the gradient of a tie to the first, or to the second, of two numbers."""

    def around(equation: Any, given: list[Any], compute: Any) -> list[Any]:
        name = equation.primitive.name
        if name not in ("max", "min"):
            return evaluate(equation, given, compute)
        a, b = given
        compare = {"max": (jnp.greater_equal, jnp.greater), "min": (jnp.less_equal, jnp.less)}[name]
        return [jnp.where(compare[not first](a, b), a, b)]

    return around


@contextlib.contextmanager
def _undetached(only: int | None) -> Iterator[list[str]]:
    """Let PyTorch's detach and no_grad do nothing, or that of this number; give their lines.

    The numbers are those of the calls, in their order.
    """
    detach, enter, leave = Tensor.detach, torch.no_grad.__enter__, torch.no_grad.__exit__
    count = itertools.count()
    undone: list[str] = []
    loose: set[int] = set()

    def chosen() -> bool:
        if only is not None and next(count) != only:
            return False
        undone.append(user_source(3))
        return True

    def attached(self: Tensor) -> Tensor:
        moves = self.requires_grad and torch.is_grad_enabled()
        return self.view_as(self) if moves and chosen() else detach(self)

    def begin(self: Any) -> None:
        if torch.is_grad_enabled() and chosen():
            loose.add(id(self))
        else:
            enter(self)

    def end(self: Any, *error: Any) -> None:
        if id(self) in loose:
            loose.remove(id(self))
        else:
            leave(self, *error)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(Tensor, "detach", attached))
        stack.enter_context(mock.patch.object(torch.no_grad, "__enter__", begin))
        stack.enter_context(mock.patch.object(torch.no_grad, "__exit__", end))
        yield undone
