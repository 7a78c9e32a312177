"""Causes in convolutions, pooling, resizing, attention and the order of axes."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import einops
import torch
import torch.nn.functional as F
from torch import Tensor

from parity.pairs.causes import TOGETHER, Candidate, Literals, of
from parity.pairs.torch_side import Operation, Variant


def _same(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return SAME's padding before and after."""
    reach = (kernel - 1) * dilation + 1
    total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _padded(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
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
                _same(*sizes)
                for sizes in zip(x.shape[2:], weight.shape[2:], stride, dilation, strict=True)
            ]
            pads = [(last, first) if before else (first, last) for first, last in pads]
            return func(
                _padded(x, pads), weight, bias, stride, [0] * len(stride), dilation, *rest, **kwargs
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
            pads = [_same(*s) for s in zip(x.shape[2:], kernel, stride, strict=True)]
            out = func(_padded(x, pads, 0.0 if average else -math.inf), kernel, stride)
            if average and not divided:
                out = out / func(_padded(torch.ones_like(x), pads), kernel, stride)
            return out

        return compute

    def by_zeros(func: Any, args: Any, kwargs: Any) -> Any:
        x, kernel, stride, padding = parts(args)
        if not any(padding):
            raise ValueError
        return func(_padded(x, [(p, p) for p in padding]), kernel, stride)

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


def _resized(mode: str, **options: Any) -> Any:
    def compute(_: Any, args: Any, __: Any, out: tuple[int, ...] = ()) -> Any:
        return F.interpolate(args[0], size=out, mode=mode, **options)

    return compute


@of(
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_nearest2d",
    "_upsample_nearest_exact2d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "upsample_linear1d",
    "upsample_trilinear3d",
    "upsample_nearest1d",
)
def resize(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """A resize with other corners, antialiasing, or cubic kernel."""
    size = operation.shape[2:]
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]

    def to(mode: str, **options: Any) -> Any:
        return lambda _, args, __: F.interpolate(args[0], size=size, mode=mode, **options)

    cubic = "bicubic" in operation.name
    mode = "bicubic" if cubic else linear
    antialiased, corners = operation.name.endswith("_aa"), True in operation.scalars
    if "nearest" in operation.name:
        exact = "exact" in operation.name
        yield Candidate(
            "resize-nearest",
            "the sides take another nearest pixel",
            "PyTorch's nearest takes floor(i * scale)",
            to("nearest" if exact else "nearest-exact"),
        )
        yield Candidate(
            "resize-method",
            "JAX interpolates linearly",
            "method='nearest' in JAX",
            to(linear, align_corners=False),
        )
        return
    yield Candidate(
        "resize-align-corners",
        f"align_corners={corners} in PyTorch, not so in JAX",
        "sample at PyTorch's places",
        to(mode, align_corners=not corners),
    )
    if cubic:
        for antialias in (antialiased, not antialiased):
            yield Candidate(
                "resize-cubic",
                "PyTorch: cubic with a = -0.75; JAX: a = -0.5"
                + ("" if antialias == antialiased else ", and antialiased otherwise"),
                "jax.image.scale_and_translate with a kernel of a = -0.75",
                lambda _, args, __, aa=antialias: _keys(args[0], size, aa),
            )
    if len(size) == 2:
        yield Candidate(
            "resize-antialias",
            f"PyTorch: {'with' if antialiased else 'no'} antialiasing; JAX: the other",
            f"antialias={antialiased} in jax.image.resize",
            to(mode, align_corners=False, antialias=not antialiased),
        )
    for other in ("nearest", "nearest-exact", linear, "bicubic"):
        if other != mode and (other != "bicubic" or len(size) == 2):
            options = {} if "nearest" in other else {"align_corners": False}
            yield Candidate(
                "resize-method",
                f"PyTorch: {mode}; JAX: {other}",
                f"method={mode!r} in JAX",
                to(other, **options),
            )


def _keys(x: Tensor, size: Sequence[int], antialias: bool) -> Tensor:
    """Resize by Keys' cubic kernel of a = -0.5, weights normalised inside (jax.image.resize)."""
    for axis, out in zip(range(2, x.ndim), size, strict=True):
        length = x.shape[axis]
        scale = out / length
        width = max(1 / scale, 1.0) if antialias else 1.0
        centre = (torch.arange(out, dtype=x.dtype) + 0.5) / scale - 0.5
        t = (centre[None] - torch.arange(length, dtype=x.dtype)[:, None]).abs() / width
        near = ((1.5 * t - 2.5) * t) * t + 1
        far = ((-0.5 * t + 2.5) * t - 4) * t + 2
        weights = torch.where(t >= 1, far, near)
        weights = torch.where(t >= 2, torch.zeros_like(t), weights)
        weights = weights / weights.sum(0, keepdim=True)
        x = torch.tensordot(x.movedim(axis, -1), weights, 1).movedim(-1, axis)
    return x


_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_fused_attention_overrideable",
)


@of(*_ATTENTION)
def attention(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Attention with another scale or mask."""

    def by_hand(scale: Any = None, mask: Any = None, axis: int = -1) -> Any:
        def compute(func: Any, args: Any, kwargs: Any) -> Any:
            q, k, v = args[:3]
            names = [argument.name for argument in func._schema.arguments]
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            causal, own = given.get("is_causal", False), given.get("attn_mask")
            size = scale(q) if scale else (given.get("scale") or q.shape[-1] ** -0.5)
            scores = q @ k.transpose(-1, -2) * size
            if mask is not None:
                scores = mask(scores)
            else:
                if causal:
                    scores = _causal(0)(scores)
                scores = scores if own is None else scores + own
            return scores.softmax(axis) @ v, scores.logsumexp(-1)

        return compute

    def causal(diagonal: int) -> Any:
        return by_hand(mask=_causal(diagonal))

    yield Candidate(
        "mask-missing",
        "JAX's attention has no mask",
        "give the mask in JAX",
        by_hand(mask=lambda scores: scores),
    )
    yield Candidate(
        "mask-diagonal",
        "JAX's causal mask is exclusive of the token itself, or not",
        "tril(k=0) in JAX",
        causal(1),
    )
    yield Candidate(
        "mask-diagonal",
        "JAX's attention is causal, PyTorch's not",
        "give no causal mask in JAX",
        causal(0),
    )
    yield Candidate(
        "scale",
        "JAX does not scale by 1/sqrt(d)",
        "divide by sqrt(d) in JAX",
        by_hand(scale=lambda _: 1.0),
    )
    yield Candidate(
        "scale",
        "JAX scales by 1/d",
        "divide by sqrt(d) in JAX",
        by_hand(scale=lambda q: 1 / q.shape[-1]),
    )
    yield Candidate(
        "scale",
        "JAX scales by the whole width, not by that of a head",
        "divide by sqrt(d) of a head in JAX",
        by_hand(scale=lambda q: (q.shape[-1] * q.shape[1]) ** -0.5),
    )
    yield Candidate(
        "softmax-axis",
        "JAX's softmax is over the queries",
        "softmax over the keys in JAX",
        by_hand(axis=-2),
    )
    yield Candidate(
        "softmax-axis",
        "JAX's softmax is over the heads",
        "softmax over the keys in JAX",
        by_hand(axis=-3),
    )
    for factor in dict.fromkeys([*literals, *(1 / x for x in literals if x)]):
        yield Candidate(
            "scale",
            f"JAX scales by {factor:g}",
            "scale as PyTorch does in JAX",
            by_hand(scale=lambda _, f=factor: f),
        )


def _causal(diagonal: int) -> Any:
    def mask(scores: Tensor) -> Tensor:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(diagonal)
        return scores.masked_fill(~allowed, -math.inf)

    return mask


@of("view", "_unsafe_view", "reshape")
def flattened(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Axes merged or split in another order."""

    def order(*axes: int) -> Any:
        def compute(_: Any, args: Any, __: Any) -> Any:
            x = args[0]
            if x.ndim != len(axes):
                raise ValueError
            return x.permute(axes).reshape(operation.shape)

        return compute

    def split(_: Any, args: Any, __: Any) -> Any:
        rows = list(operation.shape)
        last, before = rows[-1], rows[-2]
        return args[0].reshape(*rows[:-2], last, before).transpose(-1, -2)

    yield Candidate(
        "flatten-order",
        "PyTorch flattens channels first; JAX channels last",
        "transpose to channels first before the flatten in JAX",
        order(0, 2, 3, 1),
    )
    for axes in ((0, 2, 1), (0, 2, 1, 3), (0, 3, 1, 2), (0, 1, 3, 2), (0, 3, 2, 1), (1, 0)):
        yield Candidate(
            "transposed",
            "the sides merge or split axes in another order",
            "transpose as PyTorch does before the reshape in JAX",
            order(*axes),
        )
    if len(operation.shape) >= 3:
        yield Candidate(
            "transposed",
            "the sides split an axis in another order",
            "split it in PyTorch's order in JAX",
            split,
        )


@of("transpose", "permute", "t")
def transposed(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """No transposition."""
    yield Candidate(
        "transposed",
        "PyTorch transposes where JAX does not",
        "transpose as PyTorch does in JAX",
        lambda func, args, kwargs: args[0].reshape(func(*args, **kwargs).shape),
    )


def rotary(made: Sequence[Operation], _: Literals) -> tuple[Candidate, dict[int, Variant]] | None:
    """Rotary pairs (i, i + d/2) against (2i, 2i + 1): halves for neighbours, in all operations."""

    def halves(func: Any, args: Any, kwargs: Any) -> Any:
        return args[0][..., ::2], args[0][..., 1::2]

    def interleaved(func: Any, args: Any, kwargs: Any) -> Any:
        parts = args[0]
        if len(parts) != 2 or parts[0].shape != parts[1].shape:
            raise ValueError
        return torch.stack(list(parts), -1).flatten(-2)

    def half(func: Any, args: Any, kwargs: Any) -> Any:
        x, _, start, *_ = args
        return x[..., ::2] if not start else x[..., 1::2]

    def neighbours(func: Any, args: Any, kwargs: Any) -> Any:
        x, _, start, *_ = args
        middle = x.shape[-1] // 2
        return x[..., middle:] if start else x[..., :middle]

    def joined(func: Any, args: Any, kwargs: Any) -> Any:
        parts = list(args[0])
        return torch.cat(parts, -1).reshape(*parts[0].shape, 2)

    variants: dict[int, Variant] = {}
    second = {o.shape for o in made if o.name == "slice" and o.scalars[1:2] in (o.shape[-1:], (1,))}
    for o in made:
        last = len(o.shape) - 1
        axes = [x for x in o.scalars if isinstance(x, int)]
        if o.name == "split" and axes[-1:] and axes[-1] in (-1, last):
            variants[o.number] = halves
        elif o.name == "cat" and (not axes or axes[-1] in (-1, last)) and len(o.parents) == 2:
            variants[o.number] = interleaved
        elif o.name == "slice" and o.shape in second and axes[0] in (-1, last):
            if axes[3:] == [2]:
                variants[o.number] = neighbours
            else:
                variants[o.number] = half
        elif o.name == "stack" and o.shape[-1] == 2:
            variants[o.number] = joined
    if len(variants) < 2:
        return None
    candidate = Candidate(
        "rope-interleaved",
        "one side rotates the pairs (i, i + d/2), the other (2i, 2i + 1)",
        "rotate PyTorch's pairs in JAX",
        halves,
    )
    return candidate, variants


TOGETHER.append(rotary)


@of("pixel_shuffle")
def shuffled(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Depth to space with the channels last in the packed axis, as TensorFlow and JAX ports do."""

    def other(sizes: str) -> Any:
        def compute(_: Any, args: Any, __: Any) -> Any:
            x, r = args
            return einops.rearrange(x, f"b ({sizes}) h w -> b c (h p) (w q)", p=r, q=r)

        return compute

    for sizes in ("p q c", "c q p", "q p c", "p c q", "q c p"):
        yield Candidate(
            "transposed",
            f"PyTorch splits channels as (c p q), JAX as ({sizes})",
            "split channels as (c p q) in JAX",
            other(sizes),
        )


def strided(made: Sequence[Operation], _: Literals) -> tuple[Candidate, dict[int, Variant]] | None:
    """Every second element from the second on, in place of the first."""

    def later(func: Any, args: Any, kwargs: Any) -> Any:
        x, axis, start, *rest = args
        return func(x, axis, (start or 0) + 1, *rest)

    variants = {
        o.number: later
        for o in made
        if o.name == "slice" and len(o.scalars) > 3 and o.scalars[3] > 1
    }
    if not variants:
        return None
    candidate = Candidate(
        "stride-phase", "JAX begins one element later", "begin where PyTorch does", later
    )
    return candidate, dict(variants)


TOGETHER.append(strided)
