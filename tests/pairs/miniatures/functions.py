"""Functions without parameters: activations, distances, attention, statistics."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from torch import Tensor

from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import between, floats, right, wrong


def _wrong(name: str, cause: str, **options: Any) -> Any:
    return wrong(name, between("input", "output", cause), **options)


def parts(x: Tensor) -> Tensor:
    positive = x.exp()
    return positive / positive.sum(-1, keepdim=True)


@right("f-hardsigmoid", ours=F.hardsigmoid, theirs=jax.nn.hard_sigmoid)
@right("f-mish", ours=F.mish, theirs=lambda x: x * jnp.tanh(jnp.logaddexp(x, 0.0)))
@right("f-celu", ours=lambda x: F.celu(x, 1.3), theirs=lambda x: jax.nn.celu(x, 1.3))
@right(
    "f-reflect",
    ours=lambda x: F.pad(x, (2, 3), mode="reflect"),
    theirs=lambda x: jnp.pad(x, ((0, 0), (0, 0), (2, 3)), mode="reflect"),
)
@_wrong("f-gelu", "gelu-tanh", ours=F.gelu, theirs=jax.nn.gelu)
@_wrong("f-leaky", "negative-slope", ours=lambda x: F.leaky_relu(x, 0.2), theirs=jax.nn.leaky_relu)
@_wrong("f-softplus", "constant", ours=lambda x: F.softplus(x, beta=2.0), theirs=jax.nn.softplus)
@_wrong("f-std", "variance-unbiased", ours=lambda x: x.std(-1), theirs=lambda x: x.std(-1))
@_wrong(
    "f-normalize",
    "epsilon-place",
    ours=lambda x: x / (x.pow(2).sum(-1, keepdim=True).sqrt() + 1e-3),
    theirs=lambda x: x / jnp.sqrt((x * x).sum(-1, keepdims=True) + 1e-3),
)
@_wrong("f-normalised", "normalised", ours=parts, theirs=jnp.exp)
def elementwise(
    seed: int, *, ours: Callable[..., Tensor], theirs: Callable[..., jax.Array]
) -> Pair:
    return Pair(torch=ours, jax=theirs, inputs=(3 * floats(seed, 2, 5, 9),))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def attend_port(q: Any, k: Any, v: Any, diagonal: int, scaled: bool, axis: int) -> Any:
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k)
    scores = scores / jnp.sqrt(q.shape[-1]).astype(q.dtype) if scaled else scores
    mask = jnp.tril(jnp.ones(scores.shape[-2:], bool), diagonal)
    return jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis) @ v


@right("f-attention")
@_wrong("f-attention-diagonal", "mask-diagonal", diagonal=1)
@_wrong("f-attention-scale", "scale", scaled=False)
@_wrong("f-attention-axis", "softmax-axis", axis=-2)
def attention(seed: int, *, diagonal: int = 0, scaled: bool = True, axis: int = -1) -> Pair:
    def port(q: Any, k: Any, v: Any) -> Any:
        return attend_port(q, k, v, diagonal, scaled, axis)

    q, k, v = (floats(seed + i, 2, 3, 6, 8) for i in range(3))
    return Pair(torch=attend, jax=port, inputs=(q, k, v))


def box(x: Tensor) -> dict[str, Tensor]:
    return {"mean": F.avg_pool2d(x, 3, stride=2, padding=1), "max": F.max_pool2d(x, 3, 2, 1)}


def box_port(x: Any, count: bool) -> dict[str, Any]:
    window, strides = (1, 1, 3, 3), (1, 1, 2, 2)
    pads = ((0, 0), (0, 0), (1, 1), (1, 1))
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, pads)
    size = jax.lax.reduce_window(jnp.ones_like(x), 0.0, jax.lax.add, window, strides, pads)
    highest = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, pads)
    return {"mean": total / (9.0 if count else size), "max": highest}


@right("f-pooling")
@_wrong("f-pooling-count", "count-include-pad", count=False)
def pooling(seed: int, *, count: bool = True) -> Pair:
    def port(x: Any) -> Any:
        return box_port(x, count)

    return Pair(torch=box, jax=port, inputs=(floats(seed, 2, 3, 9, 8),))


def perplexities(logits: Tensor) -> tuple[Tensor, Tensor]:
    log = logits.log_softmax(-1)
    entropy = -(log.exp() * log).sum(-1)
    return entropy.exp(), torch.logsumexp(logits, -1)


def perplexities_port(logits: Any) -> tuple[Any, Any]:
    p = jax.nn.softmax(logits)
    return jnp.exp(-jax.scipy.special.xlogy(p, p).sum(-1)), jax.nn.logsumexp(logits, -1)


@right("f-perplexity")
def perplexity(seed: int) -> Pair:
    return Pair(torch=perplexities, jax=perplexities_port, inputs=(floats(seed, 4, 11),))
