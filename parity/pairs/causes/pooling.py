"""Causes in pooling: padding, rounding of sizes, divisor, kind."""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from parity.pairs.causes.candidates import Candidate, Literals, of
from parity.pairs.causes.convolution import padded, same_padding
from parity.pairs.torch_side.operations import Operation, Variant

_OPERATIONS = (
    *("max_pool2d_with_indices", "max_pool1d_with_indices", "max_pool3d_with_indices"),
    *("max_pool2d", "max_pool1d", "avg_pool2d", "avg_pool1d", "avg_pool3d"),
)


@of(*_OPERATIONS)
def pooling(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """A pooling with other padding, rounding of sizes, or divisor."""
    average = operation.name.startswith("avg")
    pairs = "give the padding as pairs in JAX"
    if average:
        yield Candidate(
            "count-include-pad",
            "one side counts the padding in the average",
            "count_include_pad as in PyTorch, in JAX",
            _counted,
        )
    what = "PyTorch pads both sides alike; JAX pads as SAME does"
    yield Candidate("pool-padding", what, pairs, _same(average, divided=True))
    if average:
        what = "JAX pads as SAME does and does not count the padding"
        yield Candidate("pool-padding", what, pairs, _same(average, divided=False))
    else:
        what = "JAX pads by zeros, PyTorch by minus infinity"
        yield Candidate("pool-padding", what, "pad by -inf in JAX", _by_zeros)
    yield Candidate(
        "ceil-mode",
        "the sides round the number of windows otherwise",
        "pad so that JAX has PyTorch's windows",
        _ceiled(average),
    )
    other = F.max_pool2d if average else F.avg_pool2d
    if "2d" in operation.name:
        yield Candidate(
            "pool-kind",
            f"PyTorch: {'average' if average else 'maximum'}; JAX: the other",
            "pool by the same in JAX",
            lambda _, args, __: (lambda out: out if average else (out, out))(other(*_parts(args))),
        )


def _parts(args: Any) -> tuple[Tensor, list[int], list[int], list[int]]:
    """Return input, kernel, stride and padding of a call."""
    x, kernel = args[0], list(args[1])
    stride = list(args[2]) if len(args) > 2 and args[2] else kernel
    padding = list(args[3]) if len(args) > 3 else [0] * len(kernel)
    dims = x.ndim - 2
    kernel, stride, padding = ((v * dims)[:dims] for v in (kernel, stride, padding))
    return x, kernel, stride, padding


def _counted(func: Any, args: Any, kwargs: Any) -> Any:
    have = args[5] if len(args) > 5 else True
    args = (*args, *((None, None, [], [0, 0], False, True)[len(args) :]))
    return func(*args[:5], not have, *args[6:], **kwargs)


def _same(average: bool, *, divided: bool) -> Variant:
    def compute(func: Any, args: Any, kwargs: Any) -> Any:
        x, kernel, stride, _ = _parts(args)
        pads = [same_padding(*s) for s in zip(x.shape[2:], kernel, stride, strict=True)]
        out = func(padded(x, pads, 0.0 if average else -math.inf), kernel, stride)
        if average and not divided:
            out = out / func(padded(torch.ones_like(x), pads), kernel, stride)
        return out

    return compute


def _by_zeros(func: Any, args: Any, kwargs: Any) -> Any:
    x, kernel, stride, padding = _parts(args)
    if not any(padding):
        raise ValueError
    return func(padded(x, [(p, p) for p in padding]), kernel, stride)


def _ceiled(average: bool) -> Variant:
    def compute(func: Any, args: Any, kwargs: Any) -> Any:
        x, kernel, stride, padding = _parts(args)
        if average:
            return func(x, kernel, stride, padding, not (len(args) > 4 and args[4]))
        dilation = args[4] if len(args) > 4 else [1] * len(kernel)
        return func(x, kernel, stride, padding, dilation, not (len(args) > 5 and args[5]))

    return compute
