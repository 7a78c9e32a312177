"""Runs of a program: float32, float64, perturbed, and with reduced precision on purpose."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from jax.extend.core import Literal
from torch.utils._python_dispatch import TorchDispatchMode

from parity.pairs.rounding.arithmetic import SAMPLES, UNITS
from parity.pairs.rounding.dispatch import Perturbed
from parity.pairs.rounding.jaxpr import perturbed
from tests.pairs.programs import Program

Hook = Callable[[Any, list[Any]], tuple[list[Any], Callable[[list[Any]], list[Any]]]]
CALLS = ("jit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat", "checkpoint")


def evaluate(closed: Any, arguments: list[Any], before: Any = None, after: Any = None) -> list[Any]:
    """Evaluate a jaxpr equation by equation; the hooks see inputs and outputs of each."""
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if equation.primitive.name in CALLS:
            inner = equation.params.get("jaxpr") or equation.params["call_jaxpr"]
            outputs = evaluate(inner, inputs, before, after)
        else:
            inputs = before(equation, inputs) if before else inputs
            outputs = equation.primitive.bind(*inputs, **equation.params)
            outputs = list(outputs) if equation.primitive.multiple_results else [outputs]
            outputs = after(equation, inputs, outputs) if after else outputs
        values |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def jax_runs(
    program: Program, arrays: Any, seed: int, samples: int = SAMPLES
) -> tuple[list[Any], list[Any]]:
    """Return the outputs in float64, and those of each perturbed run."""
    with jax.enable_x64(True):
        doubles = [array.astype(np.float64) for array in arrays]
        closed = jax.make_jaxpr(program.jax)(*doubles)
        truth = evaluate(closed, doubles)
        runs = []
        for sample in range(samples):
            rng = np.random.default_rng((seed, sample))

            def shake(equation: Any, inputs: Any, outputs: Any, rng: Any = rng) -> list[Any]:
                name, unit = equation.primitive.name, UNITS["float32"]
                return perturbed(name, equation.params, inputs, outputs, unit=unit, rng=rng)

            runs.append([np.asarray(out) for out in evaluate(closed, doubles, after=shake)])
    return [np.asarray(out) for out in truth], runs


def torch_runs(
    program: Program, arrays: Any, seed: int, samples: int = SAMPLES
) -> tuple[list[Any], list[Any]]:
    """Return the outputs in float64, and those of each perturbed run."""
    truth = torch_outputs(program, arrays, torch.float64)
    runs = []
    for sample in range(samples):
        with Perturbed(seed=seed * samples + sample):
            runs.append(torch_outputs(program, arrays, torch.float64))
    return truth, runs


def torch_outputs(program: Program, arrays: Any, dtype: torch.dtype = torch.float32) -> list[Any]:
    with torch.no_grad():
        found = program.torch(*[torch.from_numpy(array).to(dtype) for array in arrays])
    return [out.numpy() for out in (found if isinstance(found, tuple) else (found,))]


def jax_outputs(program: Program, arrays: Any, *, jit: bool = False) -> list[Any]:
    function = jax.jit(program.jax) if jit else program.jax
    return [np.asarray(out) for out in jax.tree.leaves(function(*map(jax.numpy.asarray, arrays)))]


def fewer_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Round float32 values to `bits` bits after the leading one: 10 as TF32 does, 7 as bfloat16."""
    drop = 23 - bits
    raw = np.asarray(values, order="C").view(np.uint32).astype(np.uint64)
    raw = (raw + (1 << (drop - 1)) - 1 + ((raw >> drop) & 1)) >> drop << drop
    return raw.astype(np.uint32).view(np.float32)


PRODUCTS = ("dot_general", "conv_general_dilated", "mm", "addmm", "bmm", "convolution")


def jax_reduced(
    program: Program, arrays: Any, bits: int, *, last: bool = False
) -> list[np.ndarray]:
    """Return float32 outputs with the operands of all products rounded, or of the last one."""
    closed = jax.make_jaxpr(program.jax)(*arrays)
    fewer = _Fewer(bits, last)

    def before(equation: Any, inputs: list[Any]) -> list[Any]:
        return list(fewer(inputs)) if equation.primitive.name in PRODUCTS else inputs

    found: list[np.ndarray] = []
    for _ in range(1 + last):
        found = evaluate(closed, [*map(jax.numpy.asarray, arrays)], before)
        fewer.restart()
    return [np.asarray(out) for out in found]


def torch_reduced(
    program: Program, arrays: Any, bits: int, *, last: bool = False
) -> list[np.ndarray]:
    """Return float32 outputs with the operands of all products rounded, or of the last one."""
    fewer = _Fewer(bits, last)
    found: list[np.ndarray] = []
    torch.backends.mkldnn.set_flags(False)  # its fused LSTM hides its products
    try:
        for _ in range(1 + last):
            with _Reduced(fewer):
                found = torch_outputs(program, arrays)
            fewer.restart()
    finally:
        torch.backends.mkldnn.set_flags(True)
    return found


class _Fewer:
    """Rounds matrices; of the last product alone, which a first run has to count."""

    def __init__(self, bits: int, last: bool) -> None:
        self._bits, self._number, self._only = bits, 0, -1 if last else None

    def __call__(self, values: Any) -> Any:
        self._number += 1
        chosen = self._only in (None, self._number)
        return [self._round(value) if chosen else value for value in values]

    def restart(self) -> None:
        self._only, self._number = self._only and self._number, 0

    def _round(self, value: Any) -> Any:
        if not hasattr(value, "ndim") or value.ndim < 2:
            return value
        rounded = fewer_bits(np.asarray(value), self._bits)
        if isinstance(value, torch.Tensor):
            return torch.from_numpy(rounded)
        return jax.numpy.asarray(rounded)


class _Reduced(TorchDispatchMode):
    def __init__(self, fewer: _Fewer) -> None:
        super().__init__()
        self._fewer = fewer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.split("::")[1] in PRODUCTS:
            args = self._fewer(args)
        return func(*args, **(kwargs or {}))
