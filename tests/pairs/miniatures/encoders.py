"""Encoders: T5-like with parts in float32, encoder and decoder, the layer of PyTorch's library."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import linen, nnx
from torch import Tensor, nn

from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import between, floats, inside, right, tokens, wrong


class T5Norm(nn.Module):
    """Computed in float32, as T5's is, whatever the model is in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + 1e-6)).to(self.weight.dtype)


class T5Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn_norm = T5Norm(16)
        self.q = nn.Linear(16, 12, bias=False)
        self.k = nn.Linear(16, 12, bias=False)
        self.v = nn.Linear(16, 12, bias=False)
        self.o = nn.Linear(12, 16, bias=False)
        self.ff_norm = T5Norm(16)
        self.wi = nn.Linear(16, 20, bias=False)
        self.wo = nn.Linear(20, 16, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        b, s, _ = x.shape
        y = self.attn_norm(x)
        q, k, v = (f(y).view(b, s, 3, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = F.softmax((q @ k.mT + bias).float(), -1).type_as(q)
        x = x + self.o((weights @ v).transpose(1, 2).reshape(b, s, 12))
        return x + self.wo(self.wi(self.ff_norm(x)).relu())


class T5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(18, 16)
        self.relative = nn.Embedding(5, 3)
        self.layers = nn.ModuleList([T5Layer(), T5Layer()])
        self.final_norm = T5Norm(16)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.shared(ids)
        at = torch.arange(ids.shape[1])
        bias = self.relative((at[None] - at[:, None]).clamp(-2, 2) + 2).permute(2, 0, 1)
        for layer in self.layers:
            x = layer(x, bias)
        return self.final_norm(x)


class LinenNorm(linen.Module):
    epsilon: float = 1e-6

    @linen.compact
    def __call__(self, x: Any) -> Any:
        scale = self.param("scale", linen.initializers.ones, (x.shape[-1],))
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.epsilon)
        return scale * y.astype(x.dtype)


class LinenT5(linen.Module):
    epsilon: float = 1e-6
    scale: float = 1.0
    reach: int = 2

    @linen.compact
    def __call__(self, ids: Any) -> Any:
        x = linen.Embed(18, 16, name="token_embedder")(ids)
        at = jnp.arange(ids.shape[1])
        bucket = jnp.clip(at - at[:, None], -self.reach, self.reach) + 2
        bias = linen.Embed(5, 3, name="rel_embedding")(bucket).transpose(2, 0, 1)
        for i in range(2):
            x = x + self.attention(LinenNorm(name=f"pre_attention_{i}")(x), bias, i)
            y = LinenNorm(self.epsilon if i else 1e-6, name=f"pre_mlp_{i}")(x)
            y = linen.relu(linen.Dense(20, use_bias=False, name=f"wi_{i}")(y))
            x = x + linen.Dense(16, use_bias=False, name=f"wo_{i}")(y)
        return LinenNorm(name="encoder_norm")(x)

    def attention(self, x: Any, bias: Any, i: int) -> Any:
        q, k, v = (
            linen.DenseGeneral((3, 4), use_bias=False, name=f"{name}_{i}")(x)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (self.scale if i else 1.0) + bias
        weights = jax.nn.softmax(scores.astype(jnp.float32), -1).astype(x.dtype)
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        return linen.DenseGeneral(16, axis=(-2, -1), use_bias=False, name=f"out_{i}")(y)


@right("t5", notes=("float32",))
@wrong("t5-epsilon", inside("layers.1.ff_norm", "epsilon"), epsilon=1e-5)
@wrong("t5-scale", between("layers.1.v", "layers.1.o", "scale"), scale=0.5)
def t5(seed: int, **options: Any) -> Pair:
    """Both sides normalise, and take the softmax, in float32; mistakes are in the second layer."""
    ids = tokens(seed, 18, 2, 6)
    net = LinenT5(**options)
    return Pair(torch=T5(), jax=(net, net.init(jax.random.key(seed), ids)), inputs=(ids,))


class Seq2Seq(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(15, 16)
        self.encoder = nn.TransformerEncoderLayer(
            16, 2, 24, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder_norm = nn.LayerNorm(16)
        self.cross_q = nn.Linear(16, 16)
        self.cross_kv = nn.Linear(16, 32)
        self.cross_out = nn.Linear(16, 16)
        self.generator = nn.Linear(16, 15)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory = self.encoder(self.embed(source) * 4.0)
        x = self.embed(target) * 4.0
        b, s, d = x.shape
        q = self.cross_q(self.decoder_norm(x)).view(b, s, 2, 8).transpose(1, 2)
        k, v = self.cross_kv(memory).view(b, -1, 2, 2, 8).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, s, d)
        return self.generator(x + self.cross_out(y)).log_softmax(-1)


class FlaxSeq2Seq(nnx.Module):
    def __init__(
        self, rngs: nnx.Rngs, activation: Callable[..., Any], axis: int, last: Callable[..., Any]
    ) -> None:
        self.activation, self.axis, self.last = activation, axis, last
        self.tokens = nnx.Embed(15, 16, rngs=rngs)
        self.norm1 = nnx.LayerNorm(16, epsilon=1e-5, rngs=rngs)
        self.self_attention = nnx.MultiHeadAttention(2, 16, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(16, epsilon=1e-5, rngs=rngs)
        self.up = nnx.Linear(16, 24, rngs=rngs)
        self.down = nnx.Linear(24, 16, rngs=rngs)
        self.norm3 = nnx.LayerNorm(16, epsilon=1e-5, rngs=rngs)
        self.q = nnx.LinearGeneral(16, (2, 8), rngs=rngs)
        self.k = nnx.LinearGeneral(16, (2, 8), rngs=rngs)
        self.v = nnx.LinearGeneral(16, (2, 8), rngs=rngs)
        self.o = nnx.LinearGeneral((2, 8), 16, axis=(-2, -1), rngs=rngs)
        self.logits = nnx.Linear(16, 15, rngs=rngs)

    def __call__(self, source: Any, target: Any) -> Any:
        m = self.tokens(source) * 4.0
        m = m + self.self_attention(self.norm1(m))
        m = m + self.down(self.activation(self.up(self.norm2(m))))
        x = self.tokens(target) * 4.0
        q, k, v = self.q(self.norm3(x)), self.k(m), self.v(m)
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5, self.axis)
        x = x + self.o(jnp.einsum("bhqk,bkhd->bqhd", weights, v))
        return self.last(self.logits(x))


@right("seq2seq", notes=("float32",))
@wrong(
    "seq2seq-gelu-tanh",
    between("encoder.linear1", "encoder.linear2", "gelu-tanh"),
    activation=jax.nn.gelu,
)
@wrong("seq2seq-logits", between("generator", "output", "softmax"), last=lambda x: x)
@wrong("seq2seq-softmax-axis", between("cross_kv", "cross_out", "softmax-axis"), axis=2)
def seq2seq(
    seed: int,
    *,
    activation: Callable[..., Any] = lambda x: jax.nn.gelu(x, approximate=False),
    axis: int = -1,
    last: Callable[..., Any] = jax.nn.log_softmax,
) -> Pair:
    """PyTorch's encoder layer takes a fused path in eval mode, past the layers that it holds."""
    flax = FlaxSeq2Seq(nnx.Rngs(seed), activation, axis, last)
    inputs = (tokens(seed, 15, 2, 7), tokens(seed + 100, 15, 2, 5))
    return Pair(torch=Seq2Seq(), jax=flax, inputs=inputs)


class Padded(nn.Module):
    """Attention of one head under a mask of padding, some of whose rows hide everything."""

    def __init__(self) -> None:
        super().__init__()
        self.qk = nn.Linear(10, 16)
        self.v = nn.Linear(10, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        q, k = self.qk(x).chunk(2, -1)
        v = self.v(x)
        scores = (q @ k.mT) * 8**-0.5
        weights = scores.masked_fill(~keep[:, None], -1e9).softmax(-1)
        return self.out(weights @ v)


def padded_port(params: Any, x: Any, keep: Any, zeros: bool, inverted: bool) -> Any:
    q, k, v = (jnp.dot(x, params[name]["w"]) + params[name]["b"] for name in "qkv")
    scores = jnp.einsum("bik,bjk->bij", q, k) / jnp.sqrt(q.shape[-1])
    seen = ~keep if inverted else keep
    scores = jnp.where(seen[:, None], scores, -1e9)
    weights = jax.nn.softmax(scores, -1)
    if zeros:  # a row of -inf alone has no softmax
        weights = jnp.where(seen[:, None], weights, 0.0)
    return jnp.dot(weights @ v, params["o"]["w"]) + params["o"]["b"]


@right("padded")
@wrong("padded-zeros", between("v", "out", "mask-value"), zeros=True)
@wrong("padded-inverted", between("v", "out", "mask-inverted"), inverted=True)
def padded(seed: int, *, zeros: bool = False, inverted: bool = False) -> Pair:
    """A row that is hidden as a whole: a mean of all in PyTorch, zeros in the wrong port."""
    keep = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)

    def port(params: Any, x: Any, keep: Any) -> Any:
        return padded_port(params, x, keep, zeros, inverted)

    widths = {"q": (10, 8), "k": (10, 8), "v": (10, 8), "o": (8, 3)}
    params = {
        name: {"w": jnp.asarray(floats(seed + i, *shape)) / 3, "b": jnp.zeros(shape[1])}
        for i, (name, shape) in enumerate(widths.items())
    }
    return Pair(torch=Padded(), jax=(port, params), inputs=(floats(seed, 3, 5, 10), keep))
