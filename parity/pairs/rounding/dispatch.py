"""Stochastic arithmetic on a PyTorch program: a mode under which it runs in float64."""

from typing import Any

import numpy as np
import torch
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode

from parity.pairs.rounding import arithmetic
from parity.pairs.rounding.aten import EXACT, RULES, Call, array, spread


class Perturbed(TorchDispatchMode):
    """Makes each operation's results wrong by a random error of precision `unit`.

    It is for a program that runs in float64 under `torch.no_grad()`. Kernels of several steps
    (softmax, normalisations, gelu, losses, interpolation) run as PyTorch's own decompositions,
    step by step, so that their error follows from each step and its cancellations.
    """

    def __init__(self, *, unit: float = arithmetic.UNITS["float32"], seed: int = 0) -> None:
        super().__init__()
        self._unit = unit
        self._rng = np.random.default_rng(seed)
        self.without_rule: set[str] = set()
        """Operations that met no rule: their error was taken as elementwise."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        if func.is_view or name in EXACT:
            return func(*args, **kwargs)
        if func._schema.is_mutable and (plain := _functional(func)) is not None:
            return self._written(func, plain, args, kwargs)
        if name not in RULES:
            with self:
                outputs = decomposition_table.get(func, func.decompose)(*args, **kwargs)
            if outputs is not NotImplemented:
                if name == "native_batch_norm":
                    self._shake(outputs[0], _folded(args, outputs, self._unit))
                return outputs
        outputs = func(*args, **kwargs)
        several = outputs if isinstance(outputs, tuple | list) else (outputs,)
        for place, output in enumerate(several):
            if isinstance(output, torch.Tensor) and output.is_floating_point() and output.numel():
                if name not in RULES:
                    self.without_rule.add(str(func))
                call = Call(name, func, args, kwargs, place)
                self._shake(output, spread(call, output, self._unit))
        return outputs

    def _written(self, func: Any, plain: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation that writes into its first argument, or into out=, and return that."""
        outs = [argument.name for argument in func._schema.arguments if argument.is_out]
        targets = [kwargs[name] for name in outs] or [args[0]]
        with self:
            results = plain(*args, **{k: value for k, value in kwargs.items() if k not in outs})
        results = results if isinstance(results, tuple | list) else (results,)
        for target, result in zip(targets, results, strict=True):
            if target.shape != result.shape:
                target.resize_(result.shape)
            target.copy_(result)
        return targets[0] if len(targets) == 1 else tuple(targets)

    def _shake(self, output: torch.Tensor, sigma: np.ndarray | None) -> None:
        if sigma is None:
            return
        values = array(output).astype(np.float64, copy=False)
        moved = arithmetic.shaken(values, sigma, self._rng)
        output.copy_(torch.from_numpy(moved))


def _name(func: Any) -> str:
    """Return `add` of aten.add_.Tensor."""
    name = func._schema.name.split("::")[1]
    return name.removesuffix("_") if not name.startswith("__") else name


def _functional(func: Any) -> Any:
    """Return the operation that makes what this one writes; None if it writes elsewhere too."""
    if any(argument.is_out for argument in func._schema.arguments):
        return func.overloadpacket
    name = func._schema.name.split("::")[1]
    return getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") else None


def _folded(args: tuple[Any, ...], outputs: tuple[torch.Tensor, ...], unit: float) -> np.ndarray:
    """σ of x·α + β with α = w/√v, β = b − m·α, as PyTorch computes a batch normalisation."""
    value, weight, _, mean, variance, training, _, epsilon = args
    root = outputs[2] if training else (variance + epsilon).rsqrt()
    mean = outputs[1] if training else mean
    alpha = root if weight is None else weight * root
    shape = (-1, *[1] * (value.ndim - 2))
    size = value.square() + mean.reshape(shape).square()
    return unit * array(size.sqrt() * alpha.abs().reshape(shape))
