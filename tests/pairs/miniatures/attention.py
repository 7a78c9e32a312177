"""Blocks of transformers: GPT with rotary embeddings, ViT, multi-head attention of a library."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import linen, nnx
from torch import Tensor, nn

from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import between, floats, inside, right, tokens, wrong


class RMS(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def rotate(x: Tensor) -> Tensor:
    """Rotary embedding of (B, S, heads, D), first half against second."""
    half = x.shape[-1] // 2
    rate = 10000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None, None] * rate
    a, b = x.chunk(2, -1)
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)


class GPTBlock(nn.Module):
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.ln1 = RMS(16)
        self.q_proj = nn.Linear(16, 16, bias=False)
        self.k_proj = nn.Linear(16, 16, bias=False)
        self.v_proj = nn.Linear(16, 16, bias=False)
        self.o_proj = nn.Linear(16, 16, bias=False)
        self.ln2 = RMS(16)
        self.gate = nn.Linear(16, 24, bias=False)
        self.up = nn.Linear(16, 24, bias=False)
        self.down = nn.Linear(24, 16, bias=False)
        self.register_buffer("mask", torch.ones(9, 9, dtype=torch.bool).tril(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, s, _ = x.shape
        y = self.ln1(x)
        q, k, v = (f(y).view(b, s, 2, 8) for f in (self.q_proj, self.k_proj, self.v_proj))
        scores = torch.einsum("bqhd,bkhd->bhqk", rotate(q), rotate(k)) / 8**0.5
        scores = scores.masked_fill(~self.mask[:s, :s], float("-inf"))
        y = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).reshape(b, s, 16)
        x = x + self.o_proj(y)
        y = self.ln2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.h = nn.ModuleList([GPTBlock(), GPTBlock()])
        self.ln_f = RMS(16)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.h:
            x = block(x)
        return F.linear(self.ln_f(x), self.embed.weight)


def rope(x: Any, base: float, interleaved: bool) -> Any:
    d = x.shape[-1]
    angle = jnp.einsum("s,d->sd", jnp.arange(x.shape[1]), base ** (-jnp.arange(0, d, 2) / d))
    turn = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    if interleaved:
        a, b = x[..., ::2], x[..., 1::2]
    else:
        a, b = x[..., : d // 2], x[..., d // 2 :]
    a, b = a * turn[0] - b * turn[1], b * turn[0] + a * turn[1]
    return jnp.stack((a, b), -1).reshape(x.shape) if interleaved else jnp.concatenate((a, b), -1)


class Attend(nnx.Module):
    def __init__(
        self, rngs: nnx.Rngs, base: float, interleaved: bool, diagonal: int, scale: float
    ) -> None:
        self.base, self.interleaved = base, interleaved
        self.diagonal, self.scale = diagonal, scale
        self.query = nnx.Linear(16, 16, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(16, 16, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(16, 16, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(16, 16, use_bias=False, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        b, s, _ = x.shape
        q, k, v = (f(x).reshape(b, s, 2, 8) for f in (self.query, self.key, self.value))
        q, k = (rope(z, self.base, self.interleaved) for z in (q, k))
        scores = jnp.einsum("bihd,bjhd->bhij", q * self.scale, k)
        mask = jnp.tril(jnp.ones((s, s), bool), self.diagonal)
        weights = jax.nn.softmax(jnp.where(mask, scores, -1e30), -1)
        return self.out(jnp.einsum("bhij,bjhd->bihd", weights, v).reshape(b, s, 16))


class FlaxGPT(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, epsilon: float, activation: Any, **attend: Any) -> None:
        self.activation = activation
        self.tok = nnx.Embed(20, 16, rngs=rngs)
        layers = [
            {
                "norm1": nnx.RMSNorm(16, epsilon=1e-6, rngs=rngs),
                "attn": Attend(rngs, **attend),
                "norm2": nnx.RMSNorm(16, epsilon=epsilon, rngs=rngs),
                "wi": nnx.Linear(16, 24, use_bias=False, rngs=rngs),
                "wg": nnx.Linear(16, 24, use_bias=False, rngs=rngs),
                "wo": nnx.Linear(24, 16, use_bias=False, rngs=rngs),
            }
            for _ in range(2)
        ]
        self.layers = nnx.List([nnx.Dict(layer) for layer in layers])
        self.final = nnx.RMSNorm(16, epsilon=1e-6, rngs=rngs)

    def __call__(self, ids: Any) -> Any:
        x = self.tok(ids)
        for layer in self.layers:
            x = x + layer.attn(layer.norm1(x))
            y = layer.norm2(x)
            x = x + layer.wo(self.activation(layer.wi(y)) * layer.wg(y))
        return self.tok.attend(self.final(x))


def _attention(cause: str, block: int = 0) -> Any:
    return between(f"h.{block}.v_proj", f"h.{block}.o_proj", cause)


@right("gpt")
@wrong("gpt-rope-base", _attention("rope-base"), base=500000.0)
@wrong("gpt-rope-interleaved", _attention("rope-interleaved"), interleaved=True)
@wrong("gpt-mask-diagonal", _attention("mask-diagonal"), diagonal=1)
@wrong("gpt-scale", _attention("scale"), scale=16**-0.5)
@wrong("gpt-epsilon", inside("h.0.ln2", "epsilon"), epsilon=1e-5)
@wrong("gpt-gelu", between("h.0.up", "h.0.down", "activation"), activation=jax.nn.gelu)
def gpt(
    seed: int,
    *,
    base: float = 10000.0,
    interleaved: bool = False,
    diagonal: int = 0,
    scale: float = 8**-0.5,
    epsilon: float = 1e-6,
    activation: Callable[..., Any] = jax.nn.silu,
) -> Pair:
    """Its embedding is tied to its head, and each mistake is in both blocks."""
    attend = {"base": base, "interleaved": interleaved, "diagonal": diagonal, "scale": scale}
    flax = FlaxGPT(nnx.Rngs(seed), epsilon, activation, **attend)
    return Pair(torch=GPT(), jax=flax, inputs=(tokens(seed, 20, 2, 7),))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, stride=4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 12))
        self.pos_embed = nn.Parameter(torch.zeros(1, 7, 12))
        self.norm1 = nn.LayerNorm(12, eps=1e-6)
        self.qkv = nn.Linear(12, 36)
        self.proj = nn.Linear(12, 12)
        self.norm2 = nn.LayerNorm(12, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).mT
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed
        b, s, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, s, 3, 3, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(y.transpose(1, 2).reshape(b, s, d))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


class LinenViT(linen.Module):
    mixed: bool = False
    tanh: bool = False
    pooled: bool = False

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Conv(12, (4, 4), 4, name="embedding")(x)
        b, h, w, d = x.shape
        cls = self.param("cls", linen.initializers.zeros, (1, 1, d))
        x = jnp.concatenate((jnp.tile(cls, (b, 1, 1)), x.reshape(b, h * w, d)), 1)
        x = x + self.param("pos_embedding", linen.initializers.normal(0.02), (1, h * w + 1, d))
        y = linen.LayerNorm(epsilon=1e-6)(x)
        q, k, v = (linen.DenseGeneral((3, 4), name=name)(y) for name in ("query", "key", "value"))
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2, -1)
        y = jnp.einsum("bhqk,bkhd->bhqd", weights, v)
        y = y if self.mixed else y.transpose(0, 2, 1, 3)
        x = x + linen.Dense(d, name="out")(y.reshape(b, h * w + 1, d))
        y = linen.Dense(20)(linen.LayerNorm(epsilon=1e-6)(x))
        x = x + linen.Dense(d)(linen.gelu(y, approximate=self.tanh))
        return linen.Dense(10, name="head")(x.mean(1) if self.pooled else x[:, 0])


@right("vit")
@wrong("vit-transposed", between("qkv", "proj", "transposed"), mixed=True)
@wrong("vit-gelu-tanh", between("mlp.0", "mlp.2", "gelu-tanh"), tanh=True)
@wrong("vit-pooled", between("mlp.2", "head", "pooling"), pooled=True)
def vit(seed: int, **options: Any) -> Pair:
    """One Linear of q, k and v against three, with heads split off; cls and position are bare."""
    x = floats(seed, 2, 3, 8, 12)
    net = LinenViT(**options)
    variables = net.init(jax.random.key(seed), x.transpose(0, 2, 3, 1))
    return Pair(
        torch=ViT(),
        jax=(net, variables),
        inputs=(x,),
        call_jax=lambda net, x: net(x.transpose(0, 2, 3, 1)),
    )


class LibraryAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.out = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        y, _ = self.attn(x, x, x, attn_mask=hidden, need_weights=False)
        return self.out(self.norm(x + y))


class FlaxLibraryAttention(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, residual: bool) -> None:
        self.residual = residual
        self.mha = nnx.MultiHeadAttention(4, 16, decode=False, rngs=rngs)
        self.ln = nnx.LayerNorm(16, epsilon=1e-5, rngs=rngs)
        self.dense = nnx.Linear(16, 6, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        y = self.mha(x, mask=nnx.make_causal_mask(x[..., 0]))
        return self.dense(self.ln(x + y if self.residual else y))


@right("library-attention", notes=("float32",))
@wrong("library-attention-no-residual", between("attn", "norm", "residual"), residual=False)
def library_attention(seed: int, *, residual: bool = True) -> Pair:
    """PyTorch's attention never calls the layers that it holds. No bias of a key has an effect."""
    flax = FlaxLibraryAttention(nnx.Rngs(seed), residual)
    return Pair(torch=LibraryAttention(), jax=flax, inputs=(floats(seed, 3, 5, 16),))
