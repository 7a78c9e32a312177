"""PyTorch's gradients in float64: of leaves, inputs, and each value at a layer."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode

from parity.pairs.case import Case
from parity.pairs.pair import PairError
from parity.pairs.torch_side.model import arrays, tensor
from parity.pairs.torch_side.recorded import Key

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

    def __init__(
        self, case: Case, cotangents: Sequence[np.ndarray], *, inputs_too: bool = True
    ) -> None:
        self.inputs_too = inputs_too
        try:
            self._pull(case, cotangents, inputs_too=inputs_too)
        except (PairError, RuntimeError):  # PyTorch has no gradient of an input, as class weights
            if not inputs_too:
                raise
            self.inputs_too = False
            self._pull(case, cotangents, inputs_too=False)

    def _pull(self, case: Case, cotangents: Sequence[np.ndarray], *, inputs_too: bool) -> None:
        self.values: dict[At, np.ndarray] = {}
        watched = {part for layer in case.layers for part in layer.torch.split("#")[0].split("+")}
        inputs = [tensor(x) for x in case.pair.inputs]
        for x in inputs:
            x.requires_grad_(inputs_too and x.is_floating_point())

        def seen(layer: str, way: str, place: int, call: int, value: Tensor) -> Tensor:
            if layer not in watched or not value.is_floating_point():
                return value
            at = ((layer, way, call), place)
            # what the user detached has a gradient too, which goes no further
            value = value.clone() if value.requires_grad else value.detach().requires_grad_()

            def keep(gradient: Tensor) -> None:
                self.values[at] = gradient.detach().double().numpy().copy()

            value.register_hook(keep)
            return value

        for leaf in case.torch.tensors.values():
            leaf.grad = None
        with torch.enable_grad(), case.wide():
            outputs = arrays(case.torch.run(inputs, seen=seen))
            given = [
                (y, torch.from_numpy(c))
                for y, c in zip(outputs, cotangents, strict=True)
                if y.requires_grad
            ]
            if given:
                with _Exact():
                    torch.autograd.backward([y for y, _ in given], [c for _, c in given])
        self._join(case)
        self.leaves = {
            n: _gradient(case.torch.tensors[n])
            for n, leaf in case.torch.leaves.items()
            if leaf.trained and n not in case.torch.frozen
        }
        self.inputs = [_gradient(x) if inputs_too else None for x in inputs]

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
    gradient, value.grad = value.grad, None
    return np.zeros(tuple(value.shape)) if gradient is None else gradient.double().numpy()
