"""Small pairs that are wrong in themselves: each has to be refused by one line."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen, nnx
from torch import nn

from parity import Pair

X = np.ones((2, 4), np.float32)


def two_outputs() -> Pair:
    return Pair(torch=lambda x: (x, x), jax=lambda x: x, inputs=(X,))


def other_shapes() -> Pair:
    return Pair(torch=lambda x: x, jax=lambda x: x[:, :3], inputs=(X,))


def needs_arguments() -> Pair:
    return Pair(torch=nn.Bilinear(4, 4, 2), jax=lambda x: x, inputs=(X,))


def raises_in_jax() -> Pair:
    def port(x: object) -> object:
        raise KeyError("no such head")

    return Pair(torch=lambda x: x, jax=port, inputs=(X,))


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.fc(self.fc(x)))


class FlaxOnce(nnx.Module):
    def __init__(self) -> None:
        self.fc = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc(self.fc(x))


def called_more_often() -> Pair:
    return Pair(torch=Repeated(), jax=FlaxOnce(), inputs=(X,))


def dropout_stays() -> Pair:
    return Pair(torch=lambda x: nn.functional.dropout(x, 0.5), jax=lambda x: x, inputs=(X,))


def random_numbers() -> Pair:
    return Pair(torch=lambda x: x + torch.randn(2, 4), jax=lambda x: x, inputs=(X,))


def no_float64() -> Pair:
    def half(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._int_mm(x, x)

    return Pair(torch=half, jax=lambda x: x, inputs=(X,))


def linen_alone() -> Pair:
    return Pair(torch=lambda x: x, jax=linen.Dense(4), inputs=(X,))


def strings() -> Pair:
    return Pair(torch=lambda x: x, jax=lambda x: x, inputs=(np.array(["a"]),))


def loss_missing() -> Pair:
    return Pair(torch=lambda x: x, jax=lambda x: x, inputs=(X,), optimizer=(torch.optim.SGD, None))


def right() -> Pair:
    return Pair(torch=torch.tanh, jax=jnp.tanh, inputs=(X,))


right_pair = right()
not_a_pair = 3


def returns_none() -> None:
    pass
