"""Causes in attention: mask, scale, axis, rotary pairs."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from parity.pairs.causes.candidates import Candidate, Literals, of
from parity.pairs.torch_side.operations import Operation, Variant

_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_fused_attention_overrideable",
)


@of(*_ATTENTION)
def attention(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Attention with another scale or mask."""
    diagonal = "JAX's causal mask is exclusive of the token itself, or not"
    none, whole = (
        "JAX's attention has no mask",
        "JAX scales by the whole width, not by that of a head",
    )
    only = "JAX's attention is causal, PyTorch's not"
    root, keys = "divide by sqrt(d) in JAX", "softmax over the keys in JAX"
    for cause, what, fix, variant in (
        ("mask-missing", none, "give the mask in JAX", _by_hand(mask=lambda scores: scores)),
        ("mask-diagonal", diagonal, "tril(k=0) in JAX", _by_hand(mask=_causal(1))),
        ("mask-diagonal", only, "give no causal mask in JAX", _by_hand(mask=_causal(0))),
        ("scale", "JAX does not scale by 1/sqrt(d)", root, _by_hand(scale=lambda _: 1.0)),
        ("scale", "JAX scales by 1/d", root, _by_hand(scale=lambda q: 1 / q.shape[-1])),
        ("scale", whole, "divide by sqrt(d) of a head in JAX", _by_hand(scale=_of_the_width)),
        ("softmax-axis", "JAX's softmax is over the queries", keys, _by_hand(axis=-2)),
        ("softmax-axis", "JAX's softmax is over the heads", keys, _by_hand(axis=-3)),
    ):
        yield Candidate(cause, what, fix, variant)
    for factor in dict.fromkeys([*literals, *(1 / x for x in literals if x)]):
        yield Candidate(
            "scale",
            f"JAX scales by {factor:g}",
            "scale as PyTorch does in JAX",
            _by_hand(scale=lambda _, f=factor: f),
        )


def _by_hand(scale: Any = None, mask: Any = None, axis: int = -1) -> Variant:
    """Return attention with another scale of scores (of q), mask (of scores) or softmax's axis."""

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


def _of_the_width(q: Tensor) -> float:
    return (q.shape[-1] * q.shape[1]) ** -0.5


def _causal(diagonal: int) -> Any:
    def mask(scores: Tensor) -> Tensor:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(diagonal)
        return scores.masked_fill(~allowed, -math.inf)

    return mask


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
