"""Small programs in both frameworks whose rounding is known to be right."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from jax import lax


@dataclass(frozen=True)
class Program:
    """One function of float arrays in JAX and in PyTorch, and what it is called with."""

    jax: Callable[..., Any]
    torch: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    """Of the input and of the weights."""
    scale: float = 1.0
    shift: float = 0.0
    """The input is scale·normal + shift."""

    def draw(self, seed: int) -> list[np.ndarray]:
        """Return an input, and weights that keep its size."""
        rng = np.random.default_rng(seed)
        first, *rest = self.shapes
        arrays = [rng.standard_normal(first) * self.scale + self.shift]
        arrays += [rng.standard_normal(shape) / max(1, np.prod(shape[1:])) ** 0.5 for shape in rest]
        return [array.astype(np.float32) for array in arrays]


def _norm(x: Any, axis: Any = -1) -> Any:
    mean = x.mean(axis, keepdims=True)
    return (x - mean) * lax.rsqrt(jnp.square(x - mean).mean(axis, keepdims=True) + 1e-5)


def _conv(x: Any, w: Any, stride: int = 1) -> Any:
    layout = ("NCHW", "OIHW", "NCHW")
    return lax.conv_general_dilated(x, w, (stride,) * 2, [(1, 1)] * 2, dimension_numbers=layout)


def _deep_jax(x: Any, w: Any) -> Any:
    for _ in range(12):
        x = x + jnp.tanh(_norm(x) @ w.T)
    return x


def _deep_torch(x: Any, w: Any) -> Any:
    for _ in range(12):
        x = x + torch.tanh(F.layer_norm(x, (64,)) @ w.T)
    return x


def _conv_bn_jax(x: Any, w: Any, b: Any, v: Any) -> Any:
    x = _norm(_conv(x, w) + b[:, None, None], (0, 2, 3))
    x = lax.reduce_window(jax.nn.relu(x), -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return _conv(x, v).mean((2, 3))


def _conv_bn_torch(x: Any, w: Any, b: Any, v: Any) -> Any:
    x = F.batch_norm(F.conv2d(x, w, b, padding=1), None, None, training=True)
    return F.conv2d(F.max_pool2d(F.relu(x), 2), v, padding=1).mean((2, 3))


def _conv_bn_eval_jax(x: Any, w: Any, m: Any, v: Any) -> Any:
    x = _conv(x, w, 2)
    s = lax.rsqrt(v * v + 1e-5)[:, None, None]
    x = (x - m[:, None, None]) * s
    return lax.reduce_window(x, 0.0, lax.add, (1, 1, 3, 3), (1, 1, 1, 1), "VALID") / 9


def _conv_bn_eval_torch(x: Any, w: Any, m: Any, v: Any) -> Any:
    x = F.batch_norm(F.conv2d(x, w, stride=2, padding=1), m, v * v)
    return F.avg_pool2d(x, 3, 1)


def _attention_jax(x: Any, a: Any, b: Any) -> Any:
    q, k, v = jnp.moveaxis((x @ a.T).reshape(2, 24, 3, 4, 8), 2, 0)
    p = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5)
    return jnp.einsum("bhqk,bkhd->bqhd", p, v).reshape(2, 24, 32) @ b.T


def _attention_torch(x: Any, a: Any, b: Any) -> Any:
    q, k, v = (x @ a.T).reshape(2, 24, 3, 4, 8).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v)
    return y.transpose(1, 2).reshape(2, 24, 32) @ b.T


def _vit_block_jax(x: Any, a: Any, b: Any, c: Any) -> Any:
    y = _norm(x) @ a.T
    x = x + jax.nn.softmax(y @ jnp.swapaxes(y, 1, 2) / 32**0.5) @ y
    return x + jax.nn.gelu(_norm(x) @ b.T, approximate=False) @ c.T


def _vit_block_torch(x: Any, a: Any, b: Any, c: Any) -> Any:
    y = F.layer_norm(x, (32,)) @ a.T
    x = x + torch.softmax(y @ y.transpose(1, 2) / 32**0.5, -1) @ y
    return x + F.gelu(F.layer_norm(x, (32,)) @ b.T) @ c.T


def _lstm_jax(x: Any, a: Any, b: Any) -> Any:
    h = c = jnp.zeros((4, 16), x.dtype)
    for t in range(12):
        i, f, g, o = jnp.split(x[:, t] @ a.T + h @ b.T, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return h, c


def _lstm_torch(x: Any, a: Any, b: Any) -> Any:
    zero = x.new_zeros(1, 4, 16)
    parts = torch.lstm(x, (zero, zero), [a, b], False, 1, 0.0, False, False, True)
    return parts[1][0], parts[2][0]


def _activations_jax(x: Any) -> Any:
    fs = (jax.nn.silu, jax.nn.softplus, jax.nn.mish, jax.nn.elu, jax.nn.sigmoid, jnp.tanh)
    return tuple(f(x) for f in (*fs, jax.nn.log_sigmoid, jax.nn.hard_swish))


def _activations_torch(x: Any) -> Any:
    fs = (F.silu, F.softplus, F.mish, F.elu, torch.sigmoid, torch.tanh, F.logsigmoid)
    return tuple(f(x) for f in (*fs, F.hardswish))


def _losses_jax(x: Any, y: Any) -> Any:
    huber = jnp.where(jnp.abs(x - y) < 1, (x - y) ** 2 / 2, jnp.abs(x - y) - 0.5).mean()
    p = jax.nn.softmax(y)
    bce = (jnp.maximum(x, 0) - x * p + jnp.log1p(jnp.exp(-jnp.abs(x)))).mean()
    return jnp.square(x - y).mean(), huber, bce, -(p * jax.nn.log_softmax(x)).sum(-1).mean()


def _losses_torch(x: Any, y: Any) -> Any:
    p = torch.softmax(y, -1)
    bce = F.binary_cross_entropy_with_logits(x, p)
    return F.mse_loss(x, y), F.smooth_l1_loss(x, y), bce, F.cross_entropy(x, p)


def _rope_rms_jax(x: Any, w: Any) -> Any:
    x = x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
    rate = 10000 ** (-jnp.arange(0, 16, 2, x.dtype) / 16)
    angle = jnp.arange(16, dtype=x.dtype)[:, None, None] * rate
    a, b = x[..., ::2], x[..., 1::2]
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([a * c - b * s, a * s + b * c], -1).reshape(2, 16, 128) * w


def _rope_rms_torch(x: Any, w: Any) -> Any:
    x = F.rms_norm(x, (16,), eps=1e-6)
    rate = 10000 ** (-torch.arange(0, 16, 2, dtype=x.dtype) / 16)
    angle = torch.arange(16, dtype=x.dtype)[:, None, None] * rate
    a, b = x[..., ::2], x[..., 1::2]
    c, s = angle.cos(), angle.sin()
    return torch.cat([a * c - b * s, a * s + b * c], -1).reshape(2, 16, 128) * w


def _up_conv_jax(x: Any, w: Any) -> Any:
    x = _norm(x.reshape(2, 2, -1)).reshape(x.shape)
    x = jax.image.resize(jax.nn.silu(x), (2, 8, 12, 12), "bilinear")
    layout = ("NCHW", "OIHW", "NCHW")
    w = jnp.flip(jnp.swapaxes(w, 0, 1), (2, 3))
    return lax.conv_general_dilated(
        x, w, (1, 1), [(2, 2)] * 2, lhs_dilation=(2, 2), dimension_numbers=layout
    )


def _up_conv_torch(x: Any, w: Any) -> Any:
    x = F.interpolate(F.silu(F.group_norm(x, 2)), size=(12, 12), mode="bilinear")
    return F.conv_transpose2d(x, w, stride=2, padding=1)


def _wide_jax(x: Any, w: Any) -> Any:
    """Sums and products of thousands of terms, of one sign and of mixed signs."""
    return x @ x.T, x @ w.T, x.sum(-1), w.sum(-1), x.mean(), jnp.cumsum(x, 1)[:, ::97]


def _wide_torch(x: Any, w: Any) -> Any:
    return x @ x.T, x @ w.T, x.sum(-1), w.sum(-1), x.mean(), x.cumsum(1)[:, ::97]


def _cosine_jax(x: Any, y: Any) -> Any:
    n = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(y, axis=-1)
    return (x * y).sum(-1) / n, jnp.exp(jnp.log(jnp.abs(x)) * 1.7), jnp.var(x, 0, ddof=1)


def _cosine_torch(x: Any, y: Any) -> Any:
    return F.cosine_similarity(x, y), (x.abs().log() * 1.7).exp(), x.var(0)


PROGRAMS = {
    "mlp": Program(
        lambda x, a, b, c: jax.nn.relu(x @ a.T + b) @ c.T,
        lambda x, a, b, c: F.linear(F.relu(F.linear(x, a, b)), c),
        ((16, 64), (128, 64), (128,), (10, 128)),
    ),
    "deep": Program(_deep_jax, _deep_torch, ((16, 64), (64, 64))),
    "conv_bn": Program(
        _conv_bn_jax, _conv_bn_torch, ((4, 3, 16, 16), (16, 3, 3, 3), (16,), (8, 16, 3, 3))
    ),
    "conv_bn_eval": Program(
        _conv_bn_eval_jax, _conv_bn_eval_torch, ((2, 4, 12, 12), (8, 4, 3, 3), (8,), (8,))
    ),
    "layer_norm": Program(_norm, lambda x: F.layer_norm(x, (96,)), ((32, 96),)),
    "layer_norm_far": Program(
        _norm, lambda x: F.layer_norm(x, (96,)), ((32, 96),), scale=0.01, shift=100.0
    ),
    "variance_one_pass": Program(
        lambda x: jnp.square(x).mean(-1) - jnp.square(x.mean(-1)),
        lambda x: x.square().mean(-1) - x.mean(-1).square(),
        ((32, 96),),
        shift=30.0,
    ),
    "attention": Program(_attention_jax, _attention_torch, ((2, 24, 32), (96, 32), (32, 32))),
    "vit_block": Program(
        _vit_block_jax, _vit_block_torch, ((2, 16, 32), (32, 32), (64, 32), (32, 64))
    ),
    "softmax": Program(jax.nn.softmax, lambda x: torch.softmax(x, -1), ((64, 50),), scale=10.0),
    "log_softmax": Program(
        lambda x: (jax.nn.log_softmax(x), jax.nn.logsumexp(x, -1)),
        lambda x: (torch.log_softmax(x, -1), torch.logsumexp(x, -1)),
        ((64, 50),),
        scale=10.0,
    ),
    "lstm": Program(_lstm_jax, _lstm_torch, ((4, 12, 16), (64, 16), (64, 16))),
    "activations": Program(_activations_jax, _activations_torch, ((4000,),), scale=3.0),
    "gelu": Program(
        lambda x: (jax.nn.gelu(x), jax.nn.gelu(x, approximate=False)),
        lambda x: (F.gelu(x, approximate="tanh"), F.gelu(x)),
        ((4000,),),
        scale=3.0,
    ),
    "losses": Program(_losses_jax, _losses_torch, ((256, 20), (256, 20))),
    "rope_rms": Program(_rope_rms_jax, _rope_rms_torch, ((2, 16, 8, 16), (128,))),
    "up_conv": Program(_up_conv_jax, _up_conv_torch, ((2, 8, 8, 8), (8, 6, 4, 4))),
    "wide": Program(_wide_jax, _wide_torch, ((8, 4096), (8, 4096)), scale=0.3, shift=1.0),
    "roots": Program(
        lambda x, y: x - jnp.sqrt(x * x - y),
        lambda x, y: x - (x * x - y).sqrt(),
        ((500,), (500,)),
        shift=40.0,
    ),
    "cosine": Program(_cosine_jax, _cosine_torch, ((64, 32), (64, 32))),
}
