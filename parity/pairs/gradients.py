"""Gradients in float64: the same cotangent through both sides, region by region."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode

from parity.pairs.forward import OUTPUT, ROUNDING, Key, distance, plain, products_of
from parity.pairs.jax_side import wide
from parity.pairs.jaxprs import Evaluator, Tag, bind, equations
from parity.pairs.locate import Case, place_of
from parity.pairs.patterns import inverse, rearranged
from parity.pairs.proof import Difference, Kind, Place
from parity.pairs.torch_side import Wide, arrays, tensor

At = tuple[Key, int]


class _Exact(TorchDispatchMode):
    """Computes in float64 what PyTorch's own kernels do with constants of float32.

    As 1/6 in the derivative of hardsigmoid, also for float64.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "elu_backward" and abs(args[3] * args[1] - 1) < 1e-6:  # celu's 1 / alpha
            args = (*args[:3], 1 / args[1], *args[4:])
        if name in ("hardsigmoid_backward", "elu_backward"):
            return decomposition_table[func](*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class Truth:
    """PyTorch's gradients: of each value at a layer, of each leaf, and of each input."""

    def __init__(self, case: Case, cotangents: Sequence[np.ndarray]) -> None:
        self.values: dict[At, np.ndarray] = {}
        watched = {part for layer in case.layers for part in layer.torch.split("#")[0].split("+")}
        kept: dict[At, Tensor] = {}
        inputs = [tensor(x) for x in case.pair.inputs]
        for x in inputs:
            x.requires_grad_(x.is_floating_point())

        def seen(layer: str, way: str, place: int, call: int, value: Tensor) -> Tensor:
            if layer not in watched or not value.is_floating_point():
                return value
            at = ((layer, way, call), place)
            # what the user detached has a gradient too, which goes no further
            value = value.clone() if value.requires_grad else value.detach().requires_grad_()
            value.register_hook(lambda gradient: kept.__setitem__(at, gradient))
            return value

        for leaf in case.torch.tensors.values():
            leaf.grad = None
        with torch.enable_grad(), Wide() if case.widen else contextlib.nullcontext():
            outputs = arrays(case.torch.run(inputs, seen=seen))
            given = [
                (y, torch.from_numpy(c))
                for y, c in zip(outputs, cotangents, strict=True)
                if y.requires_grad
            ]
            if given:
                with _Exact():
                    torch.autograd.backward([y for y, _ in given], [c for _, c in given])
        self.values = {at: g.detach().double().numpy().copy() for at, g in kept.items()}
        self._join(case)
        self.leaves = {
            n: _gradient(case.torch.tensors[n])
            for n, leaf in case.torch.leaves.items()
            if leaf.trained
        }
        self.inputs = [_gradient(x) for x in inputs]

    def _join(self, case: Case) -> None:
        """Enter the gradients of layers that are one on one side, and of inputs given twice."""
        for key, place in case.forced.evidence:
            layer, way, call = key
            if "#" in layer:
                base = layer.split("#")[0]
                i, n = map(int, layer.split("#")[1].split("/"))
                whole = self.values.get(((base, way, call), place))
                if whole is not None and way == "out":
                    whole = np.split(whole, n, axis=1 if whole.ndim == 4 else -1)[i]
                elif whole is not None and i:  # the first part stands for all
                    whole = np.zeros_like(whole)
                if whole is not None:
                    self.values[key, place] = whole
            elif "+" in layer:
                parts = [self.values.get(((part, way, call), place)) for part in layer.split("+")]
                known = [part for part in parts if part is not None]
                if len(known) == len(parts):
                    self.values[key, place] = (
                        np.concatenate(known, -1)
                        if way == "out"
                        else functools.reduce(np.add, known)
                    )
            else:
                arrays_ = case.recorded.arrays[key]
                for other in range(len(arrays_)):
                    again = (key, other) not in case.forced.evidence and other != place
                    if again and np.array_equal(arrays_[other], arrays_[place]):
                        more = self.values.pop((key, other), None)
                        if more is not None:
                            self.values[key, place] = self.values.get((key, place), 0) + more


def _gradient(value: Tensor) -> np.ndarray:
    if value.grad is None:
        return np.zeros(tuple(value.shape))
    return value.grad.detach().double().numpy().copy()


class Pulled:
    """JAX's gradients, each region fed with PyTorch's at its end."""

    def __init__(
        self, case: Case, truth: Truth, cotangents: Sequence[np.ndarray], around: Any
    ) -> None:
        forced = case.forced
        taps = {
            at: rearranged(case.recorded.arrays[at[0]][at[1]], *forced.arrangements[at])
            for at, e in forced.evidence.items()
            if at[0][0] != OUTPUT and e.is_float
        }
        torch_of = {layer.jax: layer.torch for layer in case.layers}
        with jax.enable_x64(True):
            floats = {n: jnp.asarray(v) for n, v in case.jax_values.items()}
            inputs = [jnp.asarray(wide(x)) for x in case.pair.inputs]
            moving = [i for i, x in enumerate(inputs) if jnp.issubdtype(x.dtype, jnp.floating)]

            def regions(leaves: Any, tapped: Any, moved: Any) -> Any:
                seen: dict[At, Any] = {}
                used: dict[Key, int] = {}

                def on_tag(tag: Tag, value: Any) -> Any:
                    name = torch_of.get(tag.layer)
                    key = (name or "", tag.way, tag.call)
                    places = [p for (k, p) in forced.evidence if k == key]
                    number = used.get(key, 0)
                    if (
                        name is None
                        or number >= len(places)
                        or value.size != int(np.prod(forced.evidence[key, places[number]].shape))
                    ):
                        return value
                    used[key] = number + 1
                    at = (key, places[number])
                    if at not in tapped:
                        truth_array = case.recorded.arrays[key][at[1]]
                        return jnp.asarray(
                            rearranged(truth_array, *forced.arrangements[at]), value.dtype
                        )
                    seen[at] = value
                    return tapped[at]

                full = list(inputs)
                for i, x in zip(moving, moved, strict=True):
                    full[i] = x
                args = [leaves[n] for n in case.program.names]
                types = [var.aval.dtype for var in case.program.jaxpr.jaxpr.invars[len(args) :]]
                full = [
                    x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(dtype)
                    for x, dtype in zip(full, types, strict=True)
                ]
                evaluator = Evaluator(on_tag, around, products_of(case.layers), case.program.names)
                outputs = evaluator(case.program.jaxpr, *args, *full)
                return seen, outputs[: case.program.outputs]

            primals, pull = jax.vjp(
                regions,
                floats,
                {at: jnp.asarray(v) for at, v in taps.items()},
                [inputs[i] for i in moving],
            )
            ends = {
                at: self._to_jax(case, at, truth.values.get(at), x) for at, x in primals[0].items()
            }
            outs = [
                self._output(case, n, c, x)
                for n, (c, x) in enumerate(zip(cotangents, primals[1], strict=True))
            ]
            leaves, tapped, moved = pull((ends, outs))
        self.leaves = {n: np.asarray(g, np.float64) for n, g in leaves.items()}
        self.values = {
            at: rearranged(
                np.asarray(g, np.float64),
                inverse(forced.arrangements[at][0]),
                dict(forced.arrangements[at][1]),
            )
            for at, g in tapped.items()
        }
        self.inputs = dict(zip(moving, (np.asarray(g, np.float64) for g in moved), strict=True))

    @staticmethod
    def _to_jax(case: Case, at: At, gradient: np.ndarray | None, like: Any) -> Any:
        if gradient is None:
            return jnp.zeros_like(like)
        return jnp.asarray(rearranged(gradient, *case.forced.arrangements[at]), like.dtype)

    @staticmethod
    def _output(case: Case, number: int, cotangent: np.ndarray, like: Any) -> Any:
        if not jnp.issubdtype(like.dtype, jnp.floating):
            return np.zeros(like.shape, jax.dtypes.float0)
        arranged = case.forced.arrangements[(OUTPUT, "in", 0), number]
        return jnp.asarray(rearranged(cotangent, *arranged), like.dtype)


def gradient_differences(case: Case, seed: int) -> tuple[list[Difference], int]:
    """Compare each region's gradients; return the differences, and how many were compared."""
    rng = np.random.default_rng(seed + 1)
    cotangents = [rng.normal(size=array.shape) for array in case.recorded.arrays[OUTPUT, "in", 0]]
    if not any(array.dtype.kind == "f" for array in case.recorded.arrays[OUTPUT, "in", 0]):
        return [], 0
    around = None
    if case.widen:
        from parity.pairs.forward import _widening

        around = _widening(None)
    truth = Truth(case, cotangents)
    pulled = Pulled(case, truth, cotangents, around)
    wrong = _wrong(case, truth, pulled)
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


def _wrong(case: Case, truth: Truth, pulled: Pulled) -> dict[Where, float]:
    """Return the places where gradients differ, and by how much of their scale."""
    found: dict[Where, float] = {}

    def enter(where: Where, own: np.ndarray, want: np.ndarray, scale: float) -> None:
        error, own_scale = distance(own, want)
        size = error / max(scale, own_scale)
        if not size <= 10 * ROUNDING:
            found[where] = max(found.get(where, 0.0), size)

    joined: dict[At, np.ndarray] = {}
    for (key, place), own in pulled.values.items():
        layer, way, call = key
        if "#" in layer and way == "in":
            first = ("{}#0/{}".format(layer.split("#")[0], layer.split("/")[1]), way, call), place
            joined[first] = joined.get(first, 0) + own
        else:
            joined[key, place] = own
    for at, own in joined.items():
        want = truth.values.get(at, np.zeros(own.shape))
        enter(_behind(case, at[0]), own, want, float(np.abs(want).max(initial=0)))
    for place, own in pulled.inputs.items():
        want = truth.inputs[place]
        enter(_behind(case, ("input", "out", 0)), own, want, 0.0)
    names = {layer.torch for layer in case.layers}
    for row in case.map.rows:
        if row.torch not in truth.leaves or row.jax not in pulled.leaves:
            continue
        own = case.map.to_torch(row, pulled.leaves[row.jax])
        from parity.pairs.mapping import part_of

        want = part_of(truth.leaves[row.torch], row.torch_part)
        owner = row.torch.rpartition(".")[0]
        scale = max(
            (
                float(np.abs(g).max(initial=0))
                for n, g in truth.leaves.items()
                if n.rpartition(".")[0] == owner
            ),
            default=0.0,
        )
        inside = next(
            (n for n in names if owner == plain(n) or owner.startswith(plain(n) + ".")), None
        )
        if inside:
            theirs = next(layer.jax for layer in case.layers if layer.torch == inside)
            enter(("inside", plain(inside), theirs), own, want, scale)
        else:
            enter(("between", ("input", row.torch), ("input", row.jax)), own, want, scale)
    return found


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

    stops = any(e.primitive.name == "stop_gradient" for e in equations(case.program.jaxpr))
    with _undetached():
        loose = Truth(case, cotangents)
    if not _wrong(case, loose, Pulled(case, loose, cotangents, around)):
        return (
            "stop-gradient",
            "PyTorch detaches where JAX does not",
            "jax.lax.stop_gradient where PyTorch detaches",
        )
    if stops:
        freed = Pulled(case, truth, cotangents, without("stop_gradient"))
        if len(_wrong(case, truth, freed)) < len(wrong):
            return (
                "stop-gradient",
                "JAX stops the gradient where PyTorch does not",
                "leave jax.lax.stop_gradient out",
            )
    inlined = Pulled(case, truth, cotangents, without())
    if not _wrong(case, truth, inlined):
        return (
            "custom-derivative",
            "JAX has a derivative of its own (custom_jvp or custom_vjp)",
            "write the derivative that PyTorch computes",
        )
    return None, "", None


@contextlib.contextmanager
def _undetached() -> Iterator[None]:
    """Let PyTorch's detach be the identity for the time of the block."""
    before = Tensor.detach, torch.detach
    own = torch.Tensor.detach

    def detach(self: Tensor) -> Tensor:
        return self.view_as(self) if self.requires_grad and torch.is_grad_enabled() else own(self)

    Tensor.detach = detach  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.detach = before[0]  # type: ignore[method-assign]
