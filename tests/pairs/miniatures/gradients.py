"""The same values with other gradients: stopped ones, custom ones, ties."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import Tensor, nn

from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import between, floats, right, wrong


class Teacher(nn.Module):
    """A gate that learns nothing from what it opens."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 11)
        self.gate = nn.Linear(11, 11)
        self.head = nn.Linear(11, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x).tanh()
        return self.head(h * self.gate(h.detach()).sigmoid())


class FlaxTeacher(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, stopped: bool) -> None:
        self.stopped = stopped
        self.trunk = nnx.Linear(8, 11, rngs=rngs)
        self.gating = nnx.Linear(11, 11, rngs=rngs)
        self.out = nnx.Linear(11, 4, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        h = jnp.tanh(self.trunk(x))
        gate = self.gating(jax.lax.stop_gradient(h) if self.stopped else h)
        return self.out(h * jax.nn.sigmoid(gate))


@right("stopped")
@wrong("stopped-not", between("body", "gate", "stop-gradient", "gradients"), stopped=False)
def stopped(seed: int, *, stopped: bool = True) -> Pair:
    flax = FlaxTeacher(nnx.Rngs(seed), stopped)
    return Pair(torch=Teacher(), jax=flax, inputs=(floats(seed, 3, 8),))


def straight_through(x: Tensor) -> Tensor:
    return torch.sin(x + (x.round() - x).detach())


@jax.custom_vjp
def rounded(x: Any) -> Any:
    return jnp.round(x)


rounded.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))


@jax.custom_vjp
def halved(x: Any) -> Any:
    return x * 1.0


halved.defvjp(lambda x: (x * 1.0, None), lambda _, g: (g / 2,))


@right("straight-through", custom=True)
@wrong(
    "straight-through-not", between("input", "output", "stop-gradient", "gradients"), custom=False
)
def straight(seed: int, *, custom: bool) -> Pair:
    def port(x: Any) -> Any:
        return jnp.sin(rounded(x) if custom else jnp.round(x))

    return Pair(torch=straight_through, jax=port, inputs=(3 * floats(seed, 4, 6),))


@wrong("custom-beside-max", between("input", "output", "custom-derivative", "gradients"))
def beside_max(seed: int) -> Pair:
    """A derivative of its own in a program that has a maximum, whose ties are not to blame."""

    def port(x: Any) -> Any:
        return halved(jnp.sin(x)) + jnp.maximum(x, -0.3)

    def ours(x: Tensor) -> Tensor:
        return torch.sin(x) + x.clamp_min(-0.3)

    return Pair(torch=ours, jax=port, inputs=(floats(seed, 4, 6),))


@wrong("ties-min", between("input", "output", "tie", "gradients"))
def smaller(seed: int) -> Pair:
    """PyTorch's clamp passes all of the gradient on at its limit, JAX's minimum half."""

    def port(x: Any) -> Any:
        return jnp.minimum(x, 0.0) * 3.0

    def ours(x: Tensor) -> Tensor:
        return x.clamp_max(0.0) * 3.0

    return Pair(torch=ours, jax=port, inputs=(np.round(floats(seed, 4, 6)),))


@right("ties", halves=False)
@wrong("ties-half", between("input", "output", "tie", "gradients"), halves=True)
def ties(seed: int, *, halves: bool) -> Pair:
    """At 0, where this input often lies, the maximum of two passes on half of the gradient."""

    def port(x: Any) -> Any:
        return (jnp.maximum(x, 0.0) if halves else jax.nn.relu(x)) * 3.0

    def ours(x: Tensor) -> Tensor:
        return torch.relu(x) * 3.0

    x = np.round(floats(seed, 4, 6))
    return Pair(torch=ours, jax=port, inputs=(x,))
