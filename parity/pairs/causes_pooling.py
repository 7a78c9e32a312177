"""Causes in pooling: padding, rounding of sizes, divisor, kind."""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from parity.pairs.causes import Candidate, Literals, of
from parity.pairs.causes_convolution import padded, same_padding
from parity.pairs.operations import Operation


@of(
    "max_pool2d_with_indices",
    "max_pool1d_with_indices",
    "avg_pool2d",
    "avg_pool1d",
    "max_pool3d_with_indices",
    "avg_pool3d",
    "max_pool2d",
    "max_pool1d",
)
def pooling(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """A pooling with other padding, rounding of sizes, or divisor."""
    average = operation.name.startswith("avg")

    def parts(args: Any) -> tuple[Tensor, list[int], list[int], list[int]]:
        x, kernel = args[0], list(args[1])
        stride = list(args[2]) if len(args) > 2 and args[2] else kernel
        padding = list(args[3]) if len(args) > 3 else [0] * len(kernel)
        dims = x.ndim - 2
        kernel, stride, padding = ((v * dims)[:dims] for v in (kernel, stride, padding))
        return x, kernel, stride, padding

    def counted(func: Any, args: Any, kwargs: Any) -> Any:
        have = args[5] if len(args) > 5 else True
        args = (*args, *((None, None, [], [0, 0], False, True)[len(args) :]))
        return func(*args[:5], not have, *args[6:], **kwargs)

    def same(divided: bool) -> Any:
        def compute(func: Any, args: Any, kwargs: Any) -> Any:
            x, kernel, stride, _ = parts(args)
            pads = [same_padding(*s) for s in zip(x.shape[2:], kernel, stride, strict=True)]
            out = func(padded(x, pads, 0.0 if average else -math.inf), kernel, stride)
            if average and not divided:
                out = out / func(padded(torch.ones_like(x), pads), kernel, stride)
            return out

        return compute

    def by_zeros(func: Any, args: Any, kwargs: Any) -> Any:
        x, kernel, stride, padding = parts(args)
        if not any(padding):
            raise ValueError
        return func(padded(x, [(p, p) for p in padding]), kernel, stride)

    def ceiled(func: Any, args: Any, kwargs: Any) -> Any:
        x, kernel, stride, padding = parts(args)
        if average:
            return func(x, kernel, stride, padding, not (len(args) > 4 and args[4]))
        dilation = args[4] if len(args) > 4 else [1] * len(kernel)
        return func(x, kernel, stride, padding, dilation, not (len(args) > 5 and args[5]))

    if average:
        yield Candidate(
            "count-include-pad",
            "one side counts the padding in the average",
            "count_include_pad as in PyTorch, in JAX",
            counted,
        )
    yield Candidate(
        "pool-padding",
        "PyTorch pads both sides alike; JAX pads as SAME does",
        "give the padding as pairs in JAX",
        same(divided=True),
    )
    if average:
        yield Candidate(
            "pool-padding",
            "JAX pads as SAME does and does not count the padding",
            "give the padding as pairs in JAX",
            same(divided=False),
        )
    else:
        yield Candidate(
            "pool-padding",
            "JAX pads by zeros, PyTorch by minus infinity",
            "pad by -inf in JAX",
            by_zeros,
        )
    yield Candidate(
        "ceil-mode",
        "the sides round the number of windows otherwise",
        "pad so that JAX has PyTorch's windows",
        ceiled,
    )
    other = F.max_pool2d if average else F.avg_pool2d
    if "2d" in operation.name:
        yield Candidate(
            "pool-kind",
            f"PyTorch: {'average' if average else 'maximum'}; JAX: the other",
            "pool by the same in JAX",
            lambda _, args, __: (lambda out: out if average else (out, out))(other(*parts(args))),
        )
