"""Causes in convolutions: padding, dilation, the kernel's axes."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from parity.pairs.causes import Candidate, Literals, of
from parity.pairs.operations import Operation


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
    """A convolution with other padding, or its kernel flipped."""

    def flipped(func: Any, args: Any, kwargs: Any) -> Any:
        x, weight, *rest = args
        return func(x, weight.flip(*range(2, weight.ndim)), *rest, **kwargs)

    def swapped(func: Any, args: Any, kwargs: Any) -> Any:
        x, weight, *rest = args
        return func(x, weight.transpose(0, 1), *rest, **kwargs)

    def same(before: bool) -> Any:
        def compute(func: Any, args: Any, kwargs: Any) -> Any:
            x, weight, bias, stride, _, dilation, *rest = args
            pads = [
                same_padding(*sizes)
                for sizes in zip(x.shape[2:], weight.shape[2:], stride, dilation, strict=True)
            ]
            pads = [(last, first) if before else (first, last) for first, last in pads]
            return func(
                padded(x, pads), weight, bias, stride, [0] * len(stride), dilation, *rest, **kwargs
            )

        return compute

    def dilated(other: int) -> Any:
        def compute(func: Any, args: Any, kwargs: Any) -> Any:
            x, weight, bias, stride, padding, dilation, *rest = args
            new = [
                p + (other - d) * (k - 1) // 2
                for p, d, k in zip(padding, dilation, weight.shape[2:], strict=True)
            ]
            return func(x, weight, bias, stride, new, [other] * len(dilation), *rest, **kwargs)

        return compute

    def mode(name: str) -> Any:
        def compute(func: Any, args: Any, kwargs: Any) -> Any:
            x, weight, bias, stride, padding, dilation, *rest = args
            pads = [amount for p in reversed(padding) for amount in (p, p)]
            return func(
                F.pad(x, pads, mode=name),
                weight,
                bias,
                stride,
                [0] * len(stride),
                dilation,
                *rest,
                **kwargs,
            )

        return compute

    if True in operation.scalars:
        for shift in (-1, 1):
            yield Candidate(
                "padding",
                "JAX's transposed convolution lies one pixel beside PyTorch's",
                "give ConvTranspose the padding k - 1 - p of PyTorch's, in JAX",
                lambda func, args, kwargs, s=shift: _moved(func, args, s),
            )
    yield Candidate(
        "padding",
        "PyTorch pads both sides alike; JAX pads as SAME does",
        "give the padding as pairs in JAX",
        same(before=False),
    )
    yield Candidate(
        "kernel-flipped",
        "one side's kernel is flipped in space",
        "flip the kernel's spatial axes in JAX",
        flipped,
    )
    yield Candidate(
        "padding",
        "JAX pads as SAME does, the longer side first",
        "give the padding as pairs in JAX",
        same(before=True),
    )
    for other in (1, 2, 3, 4):
        yield Candidate(
            "dilation",
            f"JAX's kernel is dilated by {other}",
            "give PyTorch's dilation in JAX",
            dilated(other),
        )
    for name in ("reflect", "circular", "replicate"):
        yield Candidate(
            "padding", f"JAX pads by {name}, PyTorch by zeros", "pad by zeros in JAX", mode(name)
        )
    yield Candidate(
        "in-out-swapped",
        "one side's kernel has its channels swapped",
        "swap the kernel's channels in JAX",
        swapped,
    )

    def shifted(func: Any, args: Any, kwargs: Any) -> Any:
        x, *rest = args
        return func(x.roll([-1] * (x.ndim - 2), list(range(2, x.ndim))), *rest, **kwargs)

    def no_bias(func: Any, args: Any, kwargs: Any) -> Any:
        return func(args[0], args[1], None, *args[3:], **kwargs)

    yield Candidate(
        "stride-phase",
        "JAX's windows begin one pixel later",
        "begin the windows where PyTorch does",
        shifted,
    )
    yield Candidate("bias-missing", "JAX adds no bias", "add the bias in JAX", no_bias)


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
