"""Attention and recurrent cells."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

from docs.entries import RNGS, Entry, Layer, normal

QKV = tuple(normal(2, 3, 5, 4, seed=seed) for seed in range(3))
"""Batch, heads, tokens, features, as PyTorch has them."""
GROUPED = (normal(2, 4, 5, 3), normal(2, 2, 5, 3, seed=1), normal(2, 2, 5, 3, seed=2))
SHORT = (normal(2, 3, 4, 6), normal(2, 3, 7, 6, seed=1), normal(2, 3, 7, 6, seed=2))
MASK = np.tril(np.ones((5, 5), bool))
EMPTY = MASK & (np.arange(5) > 0)
"""Its first row allows nothing."""


def blhd(*arrays: Any) -> tuple[Any, ...]:
    """Return arrays with tokens before heads, as JAX has them, or back."""
    return tuple(x.swapaxes(1, 2) for x in arrays)


def attend(q: Any, k: Any, v: Any, **options: Any) -> Any:
    """Call JAX's attention with PyTorch's order of axes."""
    return blhd(jax.nn.dot_product_attention(*blhd(q, k, v), **options))[0]


class Cell(Layer):
    """A recurrent cell: PyTorch's takes (input, state), Flax's (state, input)."""

    @staticmethod
    def call_jax(layer: Any, *inputs: Any) -> Any:
        x, *state = inputs
        return layer(tuple(state) if len(state) > 1 else state[0], x)[0]


class LSTM(Cell):
    """PyTorch returns (h, c) and Flax (c, h)."""

    def pair(self, jax: Any) -> Any:
        return replace(super().pair(jax), call_torch=lambda net, x, h, c: net(x, (h, c)))

    @staticmethod
    def call_jax(layer: Any, *inputs: Any) -> Any:
        x, h, c = inputs
        c, h = layer((c, h), x)[0]
        return h, c


class SelfAttention(Layer):
    """PyTorch's layer takes query, key and value and returns the weights too."""

    def pair(self, jax: Any) -> Any:
        return replace(super().pair(jax), call_torch=lambda net, x: net(x, x, x)[0])


STEP = (normal(2, 3), normal(2, 4, seed=1))

ENTRIES = [
    Entry("attention", lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
          lambda q, k, v: attend(q, k, v), QKV),
    Entry("attention, causal",
          lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
          lambda q, k, v: attend(q, k, v, is_causal=True), QKV),
    Entry("attention, causal, fewer queries than keys",
          lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
          lambda q, k, v: attend(q, k, v, is_causal=True), SHORT),
    Entry("attention, scale given",
          lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.1),
          lambda q, k, v: attend(q, k, v, scale=0.1), QKV),
    Entry("attention, boolean mask",
          lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
          lambda q, k, v, m: attend(q, k, v, mask=m[None, None]), (*QKV, MASK)),
    Entry("attention, a row without keys",
          lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
          lambda q, k, v, m: attend(q, k, v, mask=m[None, None]), (*QKV, EMPTY),
          note="where nothing is allowed PyTorch returns zeros, JAX the mean of all values"),
    Entry("attention, mask of numbers",
          lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
          lambda q, k, v, m: attend(q, k, v, bias=m[None, None]), (*QKV, normal(5, 5, seed=4))),
    Entry("attention, fewer heads of keys",
          lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
          lambda q, k, v: attend(q, k, v), GROUPED),
    Entry("attention of Flax", lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
          lambda q, k, v: blhd(nnx.dot_product_attention(*blhd(q, k, v)))[0], QKV),
    Entry("attention by hand, no scale",
          lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
          lambda q, k, v: jax.nn.softmax(q @ k.swapaxes(-1, -2)) @ v, QKV,
          with_options=lambda q, k, v:
          jax.nn.softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5) @ v),
    SelfAttention("multi-head attention",
                  lambda: nn.MultiheadAttention(6, 2, batch_first=True),
                  lambda: nnx.MultiHeadAttention(2, 6, decode=False, rngs=RNGS),
                  (normal(2, 5, 6),)),
    Entry("causal mask", lambda x: torch.triu(torch.full((5, 5), -torch.inf).to(x), 1) + x,
          lambda x: jnp.where(jnp.tril(jnp.ones((5, 5), bool)), 0, -jnp.inf) + x, (normal(5, 5),)),
    LSTM("LSTM cell", lambda: nn.LSTMCell(3, 4), lambda: nnx.LSTMCell(3, 4, rngs=RNGS),
         (*STEP, normal(2, 4, seed=2))),
    LSTM("LSTM cell, fused", lambda: nn.LSTMCell(3, 4),
         lambda: nnx.OptimizedLSTMCell(3, 4, rngs=RNGS), (*STEP, normal(2, 4, seed=2))),
    Cell("GRU cell", lambda: nn.GRUCell(3, 4), lambda: nnx.GRUCell(3, 4, rngs=RNGS), STEP),
    Cell("plain recurrent cell", lambda: nn.RNNCell(3, 4), lambda: nnx.SimpleCell(3, 4, rngs=RNGS),
         STEP),
]  # fmt: skip
