"""Causes in convolutions: padding, dilation, the kernel's axes."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from parity.pairs.causes.candidates import Candidate, Literals, of
from parity.pairs.torch_side.operations import Operation, Variant


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return SAME's padding before and after."""
    reach = (kernel - 1) * dilation + 1
    total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def padded(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Return a tensor padded by (before, after) along its last axes."""
    return F.pad(x, [amount for pair in reversed(pads) for amount in pair], value=value)


@of("convolution")
def convolution(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """A convolution with other padding, dilation, phase or bias, or its kernel flipped."""
    pairs = "give the padding as pairs in JAX"
    if True in operation.scalars:
        for shift in (-1, 1):
            yield Candidate(
                "padding",
                "JAX's transposed convolution lies one pixel beside PyTorch's",
                "give ConvTranspose the padding k - 1 - p of PyTorch's, in JAX",
                lambda func, args, kwargs, s=shift: _moved(func, args, s),
            )
    what = "PyTorch pads both sides alike; JAX pads as SAME does"
    yield Candidate("padding", what, pairs, _same(before=False))
    what, fix = "one side's kernel is flipped in space", "flip the kernel's spatial axes in JAX"
    yield Candidate("kernel-flipped", what, fix, _flipped)
    what = "JAX pads as SAME does, the longer side first"
    yield Candidate("padding", what, pairs, _same(before=True))
    for other in (1, 2, 3, 4):
        what, fix = f"JAX's kernel is dilated by {other}", "give PyTorch's dilation in JAX"
        needs = ("dilated",) if other > 1 else ()
        yield Candidate("dilation", what, fix, _dilated(other), needs)
    for name in ("reflect", "circular", "replicate"):
        what = f"JAX pads by {name}, PyTorch by zeros"
        yield Candidate("padding", what, "pad by zeros in JAX", _mode(name))
    what, fix = "one side's kernel has its channels swapped", "swap the kernel's channels in JAX"
    yield Candidate("in-out-swapped", what, fix, _swapped)
    what, fix = "JAX's windows begin one pixel later", "begin the windows where PyTorch does"
    strided = next((x for x in operation.scalars if isinstance(x, int)), 1) > 1
    yield Candidate("stride-phase" if strided else "padding", what, fix, _shifted)
    yield Candidate("bias-missing", "JAX adds no bias", "add the bias in JAX", _no_bias)


@of("constant_pad_nd")
def one_sided(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """What PyTorch pads in front of a sequence only, as for a causal convolution."""

    def both(func: Any, args: Any, kwargs: Any) -> Any:
        x, pads, *rest = args
        totals = [a + b for a, b in zip(pads[::2], pads[1::2], strict=True)]
        return func(x, [n for total in totals for n in (total // 2, total - total // 2)], *rest)

    yield Candidate(
        "padding",
        "PyTorch pads one side, as a causal convolution does; JAX both, as SAME does",
        "padding='CAUSAL', or the padding as pairs, in JAX",
        both,
    )


@of("slice")
def cut_off(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """What PyTorch cuts off a convolution that was padded on both sides, to make it causal."""

    def middle(_: Any, args: Any, __: Any) -> Any:
        x, axis, start, *_end = args
        length = operation.shape[axis]
        if start or length == x.shape[axis] or (x.shape[axis] - length) % 2:
            raise ValueError
        return x.narrow(axis, (x.shape[axis] - length) // 2, length)

    yield Candidate(
        "padding",
        "PyTorch cuts off the end, as a causal convolution does; JAX pads as SAME does",
        "padding='CAUSAL', or the padding as pairs, in JAX",
        middle,
    )


def _flipped(func: Any, args: Any, kwargs: Any) -> Any:
    x, weight, *rest = args
    return func(x, weight.flip(*range(2, weight.ndim)), *rest, **kwargs)


def _swapped(func: Any, args: Any, kwargs: Any) -> Any:
    x, weight, *rest = args
    return func(x, weight.transpose(0, 1), *rest, **kwargs)


def _shifted(func: Any, args: Any, kwargs: Any) -> Any:
    x, *rest = args
    return func(x.roll([-1] * (x.ndim - 2), list(range(2, x.ndim))), *rest, **kwargs)


def _no_bias(func: Any, args: Any, kwargs: Any) -> Any:
    return func(args[0], args[1], None, *args[3:], **kwargs)


def _same(*, before: bool) -> Variant:
    def compute(func: Any, args: Any, kwargs: Any) -> Any:
        x, weight, bias, stride, _, dilation, *rest = args
        sizes = zip(x.shape[2:], weight.shape[2:], stride, dilation, strict=True)
        pads = [same_padding(*size) for size in sizes]
        pads = [(last, first) if before else (first, last) for first, last in pads]
        none = [0] * len(stride)
        return func(padded(x, pads), weight, bias, stride, none, dilation, *rest, **kwargs)

    return compute


def _dilated(other: int) -> Variant:
    def compute(func: Any, args: Any, kwargs: Any) -> Any:
        x, weight, bias, stride, padding, dilation, *rest = args
        sizes = zip(padding, dilation, weight.shape[2:], strict=True)
        new = [p + (other - d) * (k - 1) // 2 for p, d, k in sizes]
        return func(x, weight, bias, stride, new, [other] * len(dilation), *rest, **kwargs)

    return compute


def _mode(name: str) -> Variant:
    def compute(func: Any, args: Any, kwargs: Any) -> Any:
        x, weight, bias, stride, padding, dilation, *rest = args
        wide = F.pad(x, [amount for p in reversed(padding) for amount in (p, p)], mode=name)
        return func(wide, weight, bias, stride, [0] * len(stride), dilation, *rest, **kwargs)

    return compute


def _moved(func: Any, args: Any, shift: int) -> Tensor:
    """Return a transposed convolution whose output begins `shift` pixels later."""
    x, weight, bias, stride, padding, dilation, _, extra, groups = args
    wide = [p - 1 for p in padding]
    if min(wide) < 0:
        raise ValueError
    whole = func(x, weight, bias, stride, wide, dilation, True, extra, groups)
    for axis in range(2, whole.ndim):
        whole = whole.narrow(axis, 1 + shift, whole.shape[axis] - 2)
    return whole
