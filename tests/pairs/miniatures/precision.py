"""Parts that are less precise than the model: on both sides, on one, and in which type."""

from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import between, floats, right, wrong


class Attention(nn.Module):
    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.dtype = dtype
        self.norm = nn.LayerNorm(12)
        self.qkv = nn.Linear(12, 36, bias=False)
        self.out = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        scores = (q @ k.mT / 12**0.5).to(self.dtype or x.dtype)
        return self.out(scores.softmax(-1).to(v.dtype) @ v)


class FlaxAttention(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, dtype: Any) -> None:
        self.dtype = dtype
        self.ln = nnx.LayerNorm(12, epsilon=1e-5, rngs=rngs)
        self.stacked = nnx.Linear(12, 36, use_bias=False, rngs=rngs)
        self.last = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        q, k, v = jnp.split(self.stacked(self.ln(x)), 3, -1)
        scores = q @ k.swapaxes(-1, -2) / 12**0.5
        weights = jax.nn.softmax(scores.astype(self.dtype or x.dtype), -1)
        return self.last(weights.astype(v.dtype) @ v)


@right("island-float32", theirs=jnp.float32, notes=("float32",))
@wrong("island-bfloat16", between("qkv", "out", "low-precision"), theirs=jnp.bfloat16)
@wrong("island-bfloat16-torch", between("qkv", "out", "low-precision"), ours=torch.bfloat16)
@wrong("island-float16", between("qkv", "out", "low-precision"), theirs=jnp.float16)
def island(seed: int, *, ours: torch.dtype | None = None, theirs: Any = None) -> Pair:
    """A softmax, in float32 on one side, which is what the model runs in; or in half of that."""
    flax = FlaxAttention(nnx.Rngs(seed), theirs)
    return Pair(torch=Attention(ours), jax=flax, inputs=(floats(seed, 2, 6, 12),))


def ours_log(x: Tensor) -> Tensor:
    return F.log_softmax(x.float(), -1).type_as(x)


def theirs_log(x: Any) -> Any:
    return jax.nn.log_softmax(x.astype(jnp.float32), -1).astype(x.dtype)


@right("f-island", notes=("float32",))
def island_function(seed: int) -> Pair:
    """Both sides compute in float32."""
    return Pair(torch=ours_log, jax=theirs_log, inputs=(floats(seed, 3, 13),))
