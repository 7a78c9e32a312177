"""The rules of stochastic arithmetic for aten operations: σ of each one's results."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from parity.pairs.rounding import arithmetic

_EXACT = """
_assert_async _local_scalar_dense _pack_padded_sequence _reshape_alias _reshape_copy
_unsafe_index _unsafe_masked_index _unsafe_view abs adaptive_max_pool2d alias amax amin aminmax
arange argmax argmin argsort as_strided bernoulli bitwise_and broadcast_in_dim bucketize cat
ceil channel_shuffle clamp clamp_max clamp_min clone collapse collapse_view conj constant_pad_nd
copy copy_strided cummax cummin detach diag diag_embed diagonal dropout embedding empty
empty_like empty_strided eq equal expand exponential eye fill flip floor fmax fmin fmod full
full_like gather ge gt hardtanh heaviside im2col index index_copy index_fill
index_select iota isfinite isinf isnan kthvalue le lift_fresh linspace logical_and logical_not
logical_or lt masked_fill masked_scatter masked_select max max_pool1d max_pool2d_with_indices
max_pool3d_with_indices maximum median min minimum mode multinomial narrow native_dropout ne neg
new_empty new_empty_strided new_full new_ones new_zeros nextafter nonzero normal one_hot ones
ones_like permute pixel_shuffle pixel_unshuffle rand rand_like randint randn randn_like random
randperm reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 remainder repeat
repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape resize rev roll
rot90 round scalar_tensor searchsorted select select_scatter sgn sign signbit slice
slice_scatter sort split split_with_sizes squeeze stack t threshold topk transpose tril triu
trunc unbind unfold uniform unsafe_split unsafe_split_with_sizes unsqueeze upsample_nearest1d
upsample_nearest2d upsample_nearest3d view view_of where zero zeros zeros_like
"""
EXACT = frozenset(_EXACT.split())
"""Operations that move, choose, compare or make numbers; so do all views."""


@dataclass(frozen=True)
class Call:
    """An operation that ran in float64."""

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    place: int
    """Which of its outputs is asked for."""


def spread(call: Call, output: torch.Tensor, unit: float) -> np.ndarray | None:
    """Return σ of an output; None: it is exact."""
    own = arithmetic.UNITS.get(str(output.dtype).removeprefix("torch."), 0.0)
    coarse = max(unit, 2 * own)  # a float32 result cannot move by less than an ulp
    return RULES.get(call.name, _elementwise)(call, output, coarse)


def array(value: Any) -> np.ndarray:
    """Return a tensor's or a number's values; as float32 if NumPy has no such type."""
    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    value = value.detach().cpu().resolve_conj().resolve_neg()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _elementwise(call: Call, output: torch.Tensor, unit: float) -> np.ndarray | None:
    if call.kwargs.get("rounding_mode") is not None:
        return None
    arguments = [
        array(value) for value in call.args if isinstance(value, torch.Tensor | int | float)
    ]
    return arithmetic.relative_spread(call.name, array(output), arguments, unit)


def _cast(call: Call, output: torch.Tensor, unit: float) -> np.ndarray | None:
    """σ of a cast: none where it widens, or where the narrower float holds the number."""
    source = call.args[0]
    own = arithmetic.UNITS.get(str(output.dtype).removeprefix("torch."), 0.0)
    before = arithmetic.UNITS.get(str(source.dtype).removeprefix("torch."), 0.0)
    if not source.is_floating_point() or own <= max(before, unit / 4):
        return None
    values = array(source).astype(np.float64)
    return 2 * own * np.abs(values) * arithmetic.inexact(values, own)


def _product(call: Call, output: torch.Tensor, unit: float) -> np.ndarray:
    """σ of a matrix product or convolution, by the same one of squares, in scaled float32."""
    left, right, *rest = call.args
    scale, squares = 1.0, []
    for value in (left, right):
        largest = float(value.abs().max()) if value.numel() else 1.0
        largest = largest if 0 < largest < math.inf else 1.0
        scale *= largest**2
        squares.append((value / largest).float().square())
    count, bias = float(left.shape[-1]), None
    if call.name == "convolution":
        bias, stride, transposed, groups = rest[0], rest[1], rest[4], rest[6]
        rest[0] = None
        count = right[0].numel()
        if transposed:
            count *= right.shape[0] / groups / math.prod(stride)
    total = array(call.func(*squares, *rest)).astype(np.float64) * scale
    if bias is not None:
        total += np.square(array(bias)).reshape(-1, *[1] * (right.ndim - 2))
        count += 1
    return arithmetic.product_spread(total, array(output), max(1.0, count), unit)


def _sum(call: Call, output: torch.Tensor, unit: float) -> np.ndarray:
    """σ of sums and means, by the same operation on squares."""
    value, *rest = call.args
    squares = array(call.func(value.double().square(), *rest, **call.kwargs))
    count = value.numel() / max(1, output.numel())
    if call.name == "cumsum":
        count = value.shape[rest[0]] if value.ndim else 1
    elif call.name.startswith("avg_pool"):
        kernel, axes = list(rest[0]), int(call.name[-2])
        count = math.prod(kernel * axes if len(kernel) == 1 else kernel)
    if call.name not in ("sum", "cumsum"):
        squares = squares / max(1.0, count)
    return arithmetic.sum_spread(squares, array(output), count, unit)


def _factors(call: Call, output: torch.Tensor, unit: float) -> np.ndarray:
    """σ of products of n factors: √n units."""
    value, *rest = call.args
    whole = not rest or not isinstance(rest[0], int) or not value.ndim
    count = value.numel() if whole else value.shape[rest[0]]
    return unit * math.sqrt(count) * np.abs(array(output))


def _moment(call: Call, output: torch.Tensor, unit: float) -> np.ndarray:
    """σ of a variance, standard deviation or mean.

    Each x − m has a rounding of |x − m| and, in Welford's recurrence, one of |m|: a variance v of
    n numbers has 4·v + 2·|m|·√(v/n) + unit·m² units.
    """
    both = getattr(torch.ops.aten.var_mean, call.func._overloadname)
    variance, mean = (array(value) for value in both(*call.args, **call.kwargs))
    count = call.args[0].numel() / max(1, output.numel())
    if call.name.endswith("_mean") and call.place == 1:
        return arithmetic.sum_spread((variance + np.square(mean)) / count, mean, count, unit)
    sigma = 4 * variance + 2 * np.abs(mean) * np.sqrt(variance / count) + unit * np.square(mean)
    if call.name.startswith("std"):
        sigma = sigma / np.maximum(2 * array(output), np.finfo(float).tiny)
    return unit * sigma


def _added(call: Call, output: torch.Tensor, unit: float) -> np.ndarray | None:
    """σ of x[i] += u: none where nothing is added, as where x[i] = u."""
    value, place = call.args[0], 2 if call.name.endswith("index_put") else 3
    if place == 2 and True not in (*call.args[3:], *call.kwargs.values()):
        return None
    if call.name == "scatter" and call.kwargs.get("reduce") != "add":
        return None

    def with_terms(first: torch.Tensor, terms: torch.Tensor) -> np.ndarray:
        args = (first, *call.args[1:place], terms, *call.args[place + 1 :])
        return array(call.func(*args, **call.kwargs))

    added = call.args[place]
    if not isinstance(added, torch.Tensor):
        return None
    squares = with_terms(value.square(), added.square())
    count = with_terms(torch.zeros_like(value), torch.ones_like(added))
    return arithmetic.product_spread(squares, array(output), 1.0, unit) * np.sqrt(count)


def _windows(call: Call, output: torch.Tensor, unit: float) -> np.ndarray:
    """σ of means over windows that are as large as the sizes make them."""
    value, sizes = call.args
    axes = list(zip(value.shape[-len(sizes) :], sizes, strict=True))
    least = math.prod(max(1, whole // part) for whole, part in axes)
    most = math.prod(math.ceil(whole / part) + bool(whole % part) for whole, part in axes)
    squares = array(call.func(value.square(), sizes)) / least
    return arithmetic.sum_spread(squares, array(output), most, unit)


def _smaller(call: Call, output: torch.Tensor, unit: float) -> np.ndarray:
    """σ of an antialiased resize, whose kernel makes its weights itself.

    An output's centre is scale·(i + ½), and a weight is the filter at (j − centre + ½)/scale: three
    roundings, each as if the scale of an axis were wrong by a unit, so √3 units by what its result
    changes with it (a quotient of differences of float64).
    """
    value, sizes, corners, *scales = call.args
    ratios = [a / b for a, b in zip(sizes, value.shape[2:], strict=True)]
    scales = [given or own for given, own in zip(scales or [None] * 2, ratios, strict=True)]
    step, total, taps = 1e-6, array(call.func(value.square(), sizes, corners, *scales)), 1.0
    squares = np.abs(total)
    for axis, scale in enumerate(scales):
        moved = [*scales[:axis], scale * (1 + step), *scales[axis + 1 :]]
        slope = array(call.func(value, sizes, corners, *moved) - output) / step
        squares = squares + 3 * np.square(slope)
        taps *= math.ceil(4 / min(scale, 1.0))
    return np.hypot(
        unit * np.sqrt(squares), arithmetic.sum_spread(np.abs(total), array(output), taps, unit)
    )


RULES: dict[str, Callable[[Call, torch.Tensor, float], np.ndarray | None]] = {
    **dict.fromkeys(("_to_copy", "convert_element_type"), _cast),
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "convolution"), _product),
    **dict.fromkeys(("sum", "mean", "cumsum", "avg_pool1d", "avg_pool2d", "avg_pool3d"), _sum),
    **dict.fromkeys(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"), _windows),
    **dict.fromkeys(("prod", "cumprod"), _factors),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _moment),
    **dict.fromkeys(("scatter_add", "index_add", "scatter"), _added),
    **dict.fromkeys(("index_put", "_unsafe_index_put"), _added),
    **dict.fromkeys(("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"), _smaller),
    **dict.fromkeys(arithmetic.CORRECT | set(arithmetic.ULPS), _elementwise),
    **dict.fromkeys(("exp2", "erfc", "leaky_relu", "_prelu_kernel"), _elementwise),
}
"""A rule by an operation's name; what is not here is decomposed, or taken as elementwise."""
