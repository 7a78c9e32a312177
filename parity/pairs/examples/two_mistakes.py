"""A port with two mistakes that a tolerance of 1e-3 hides: `parity prove …two_mistakes`."""

import jax
import numpy as np
from flax import nnx
from torch import nn

from parity import Pair


class Block(nn.Module):
    """A feed-forward block with a residual."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(16, 64)
        self.fc2 = nn.Linear(64, 16)
        self.norm = nn.LayerNorm(16)

    def forward(self, x):
        return self.norm(x + self.fc2(nn.functional.gelu(self.fc1(x))))


class FlaxBlock(nnx.Module):
    """Its port, by Flax's defaults: another gelu, and another epsilon."""

    def __init__(self, rngs):
        self.fc1 = nnx.Linear(16, 64, rngs=rngs)
        self.fc2 = nnx.Linear(64, 16, rngs=rngs)
        self.norm = nnx.LayerNorm(16, rngs=rngs)

    def __call__(self, x):
        return self.norm(x + self.fc2(jax.nn.gelu(self.fc1(x))))


def pair():
    """Return both, with a batch."""
    x = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    return Pair(torch=Block(), jax=FlaxBlock(nnx.Rngs(0)), inputs=(x,))
