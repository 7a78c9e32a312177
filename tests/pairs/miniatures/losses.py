"""Losses as functions of outputs and targets, and what Optax calls by the same name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch
import torch.nn.functional as F
from torch import Tensor

from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import between, floats, right, tokens, wrong


def _wrong(name: str, cause: str, **options: Any) -> Any:
    return wrong(name, between("input", "output", cause), **options)


def others(logits: Any, labels: Any) -> Any:
    """The wrong label smoothing: all of 0.1 goes to the other six classes."""
    hot = jax.nn.one_hot(labels, 7, dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, hot * 0.9 + (1 - hot) * (0.1 / 6)).mean()


def cross_entropy(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


@right("l-cross-entropy", ours=F.cross_entropy, theirs=lambda x, y: cross_entropy(x, y).mean())
@right(
    "l-smoothing",
    ours=lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1),
    theirs=lambda x, y: optax.softmax_cross_entropy(
        x, optax.smooth_labels(jax.nn.one_hot(y, 7, dtype=x.dtype), 0.1)
    ).mean(),
)
@_wrong(
    "l-smoothing-others",
    "label-smoothing",
    ours=lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1),
    theirs=others,
)
@_wrong(
    "l-smoothing-none",
    "label-smoothing",
    ours=lambda x, y: F.cross_entropy(x, y, label_smoothing=0.05),
    theirs=lambda x, y: cross_entropy(x, y).mean(),
)
@_wrong(
    "l-cross-entropy-sum",
    "reduction",
    ours=F.cross_entropy,
    theirs=lambda x, y: cross_entropy(x, y).sum(),
)
@_wrong(
    "l-ignored",
    "reduction",
    ours=lambda x, y: F.cross_entropy(x, y, ignore_index=0),
    theirs=lambda x, y: jnp.where(y == 0, 0.0, cross_entropy(x, y)).mean(),
)
def classes(seed: int, *, ours: Callable[..., Tensor], theirs: Callable[..., jax.Array]) -> Pair:
    labels = tokens(seed, 7, 6)
    labels[:2] = 0, 3
    return Pair(torch=ours, jax=theirs, inputs=(floats(seed, 6, 7), labels))


def huber(x: Any, y: Any, delta: float) -> Any:
    return optax.huber_loss(x, y, delta=delta).mean()


def smooth_l1(x: Any, y: Any) -> Any:
    return huber(x, y, 0.5) / 0.5


def binary(x: Any, y: Any) -> Any:
    return optax.sigmoid_binary_cross_entropy(x, jax.nn.sigmoid(y)).mean()


def divergence(x: Any, y: Any) -> Any:
    return optax.kl_divergence(jax.nn.log_softmax(x), jax.nn.softmax(y))


def kl(x: Tensor, y: Tensor) -> Tensor:
    return F.kl_div(x.log_softmax(-1), y.softmax(-1), reduction="batchmean")


def contrastive(x: Tensor, y: Tensor) -> Tensor:
    """CLIP's loss, both ways."""
    logits = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / 0.07
    at = torch.arange(len(x))
    return (F.cross_entropy(logits, at) + F.cross_entropy(logits.T, at)) / 2


def contrastive_port(x: Any, y: Any, temperature: float) -> Any:
    x, y = (z / jnp.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y))
    logits = x @ y.T / temperature
    ways = (jnp.diag(jax.nn.log_softmax(logits, axis)).mean() for axis in (0, 1))
    return -sum(ways) / 2


@right("l-huber", ours=F.huber_loss, theirs=lambda x, y: huber(x, y, 1.0))
@right("l-smooth-l1", ours=lambda x, y: F.smooth_l1_loss(x, y, beta=0.5), theirs=smooth_l1)
@right(
    "l-binary", ours=lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid()), theirs=binary
)
@right("l-kl", ours=kl, theirs=lambda x, y: divergence(x, y).mean())
@right("l-contrastive", ours=contrastive, theirs=lambda x, y: contrastive_port(x, y, 0.07))
@_wrong("l-mse", "scale", ours=F.mse_loss, theirs=lambda x, y: optax.l2_loss(x, y).mean())
@_wrong("l-huber-delta", "huber-delta", ours=F.huber_loss, theirs=lambda x, y: huber(x, y, 1.5))
@_wrong("l-kl-sum", "scale", ours=kl, theirs=lambda x, y: divergence(x, y).sum())
@_wrong("l-temperature", "scale", ours=contrastive, theirs=lambda x, y: contrastive_port(x, y, 0.1))
def values(seed: int, *, ours: Callable[..., Tensor], theirs: Callable[..., jax.Array]) -> Pair:
    inputs = (2 * floats(seed, 5, 8), 2 * floats(seed + 100, 5, 8))
    return Pair(torch=ours, jax=theirs, inputs=inputs)
