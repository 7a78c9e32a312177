"""The entries of the dictionary: what is called in PyTorch and in JAX, a module a group.

`docs/dictionary.py` judges them. The code of an entry is what the page shows of it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F
from flax import nnx
from jax._src import random  # initialisers draw by this module
from jax.scipy.special import ndtr, ndtri
from torch import Tensor

from parity import Pair

RNGS = nnx.Rngs(0)
"""For layers of Flax, which draw weights; the page leaves it out."""


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Return numbers of a normal distribution."""
    return np.random.default_rng(seed).normal(size=shape)


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    """Return numbers between 0.1 and 1."""
    return np.random.default_rng(seed).uniform(0.1, 1.0, size=shape)


def integers(*shape: int, below: int, seed: int = 0) -> np.ndarray:
    """Return integers from 0."""
    return np.random.default_rng(seed).integers(0, below, size=shape)


def nhwc(x: Any) -> Any:
    """Return images with their channels last."""
    return jnp.moveaxis(x, 1, -1)


def nchw(x: Any) -> Any:
    """Return images with their channels on the second axis."""
    return jnp.moveaxis(x, -1, 1)


@dataclass(frozen=True)
class Entry:
    """A function of PyTorch and one of JAX, each called with the inputs."""

    name: str
    torch: Callable[..., Any]
    jax: Callable[..., Any]
    inputs: Sequence[np.ndarray] = ()
    with_options: Callable[..., Any] | None = None
    """JAX's call that is the same, where the first one is not."""
    note: str = ""
    """Why the sides differ, where the catalogue of causes has no name for it."""

    def pair(self, jax: Callable[..., Any]) -> Pair:
        """Return what is proved."""
        return Pair(torch=self.torch, jax=jax, inputs=self.inputs)


class Layer(Entry):
    """A layer of each, in eval mode; the callables take nothing and return it."""

    def pair(self, jax: Callable[..., Any]) -> Pair:
        """Return what is proved."""
        layers = self.torch().eval(), jax()
        if isinstance(layers[1], nnx.Module):
            layers[1].eval()
        return Pair(torch=layers[0], jax=layers[1], inputs=self.inputs, call_jax=self.call_jax)

    @staticmethod
    def call_jax(layer: Any, *inputs: Any) -> Any:
        """Call Flax's layer."""
        return layer(*inputs)


class LastLayer(Layer):
    """Layers that want the channels last in Flax; the inputs are in PyTorch's layout."""

    @staticmethod
    def call_jax(layer: Any, *inputs: Any) -> Any:
        return layer(*map(nhwc, inputs))


class TrainedLayer(Layer):
    """A layer of each in train mode, with its buffers after each of some steps."""

    def pair(self, jax: Callable[..., Any]) -> Pair:
        return replace(
            super().pair(jax),
            loss=(lambda outputs: (outputs**2).mean(), lambda outputs: (outputs**2).mean()),
            optimizer=(lambda params: torch.optim.SGD(params, lr=0.1), optax.sgd(0.1)),
        )


class Update(Entry):
    """A function of parameters that returns an optimiser, and one that returns Optax's."""

    def pair(self, jax: Callable[..., Any]) -> Pair:
        return trained(self.torch, jax(), steps=8)


class Schedule(Entry):
    """A function of an optimiser that returns its schedule, and one that returns Optax's."""

    def pair(self, jax: Callable[..., Any]) -> Pair:
        def scheduled(params: Any) -> Any:
            sgd = torch.optim.SGD(params, lr=0.1)
            return sgd, self.torch(sgd)

        return trained(scheduled, optax.sgd(jax()), steps=12)


class Clip(Entry):
    """A function of parameters that changes their gradients, and Optax's transformation."""

    def pair(self, jax: Callable[..., Any]) -> Pair:
        def clipping(params: Any) -> Any:
            sgd = torch.optim.SGD(params, lr=1.0)
            sgd.register_step_pre_hook(lambda *_: void(self.torch(params)))
            return sgd

        return trained(clipping, optax.chain(jax(), optax.sgd(1.0)), steps=2)


def void(_: Any) -> None:
    """Return nothing, since a hook's result counts."""


def trained(optimizer: Callable[..., Any], transform: Any, *, steps: int) -> Pair:
    """Return the training of a linear layer, the mean of squares its loss."""
    return Pair(
        torch=torch.nn.Linear(4, 3),
        jax=nnx.Linear(4, 3, rngs=RNGS),
        inputs=(normal(5, 4),),
        loss=(F.mse_loss, lambda outputs, targets: jnp.mean((outputs - targets) ** 2)),
        targets=(normal(5, 3, seed=1),),
        optimizer=(optimizer, transform),
        steps=steps,
    )


class Initial(Entry):
    """A function that fills a weight, and one that returns JAX's initialiser.

    Both are given the same quantiles instead of random numbers: they are the same if and only if
    the weights have the same distribution.
    """

    def pair(self, jax: Callable[..., Any]) -> Pair:
        size = self.inputs[0].shape if self.inputs else (8, 6)
        ranks = np.random.default_rng(0).permutation(math.prod(size)).reshape(size)
        return Pair(torch=partial(filled, self.torch), jax=partial(made, jax()), inputs=(ranks,))


def filled(fill: Callable[[Tensor], Any], ranks: Tensor) -> Tensor:
    """Return a weight that PyTorch fills, of sizes (out, in, *kernel), from quantiles."""
    at = (ranks.double() + 0.5) / ranks.numel()

    def uniform(weight: Tensor, low: float = 0.0, high: float = 1.0, **_: Any) -> Tensor:
        return weight.copy_(low + (high - low) * at)

    def gaussian(weight: Tensor, mean: float = 0.0, std: float = 1.0, **_: Any) -> Tensor:
        return weight.copy_(mean + std * torch.special.ndtri(at))

    weight = torch.zeros(ranks.shape, dtype=torch.float64)
    with mock.patch.multiple(Tensor, uniform_=uniform, normal_=gaussian):
        fill(weight)
    return weight


def made(initializer: Callable[..., Any], ranks: Any) -> Any:
    """Return a weight that JAX makes, of sizes (*kernel, in, out), from quantiles."""
    order = (*range(2, ranks.ndim), 1, 0)
    at = (ranks.transpose(order).astype(float) + 0.5) / ranks.size

    def uniform(
        _: Any, __: Any, ___: Any, minval: Any = 0.0, maxval: Any = 1.0, **____: Any
    ) -> Any:
        return minval + (maxval - minval) * at

    def truncated(_: Any, lower: Any, upper: Any, *__: Any, **___: Any) -> Any:
        low, high = ndtr(float(lower)), ndtr(float(upper))
        return ndtri(low + (high - low) * at)

    def gaussian(*_: Any, **__: Any) -> Any:
        return ndtri(at)

    drawn = {"uniform": uniform, "normal": gaussian, "truncated_normal": truncated}
    with mock.patch.multiple(random, **drawn):
        weight = initializer(random.key(0), at.shape, at.dtype)
    return weight.transpose(ranks.ndim - 1, ranks.ndim - 2, *range(ranks.ndim - 2))
