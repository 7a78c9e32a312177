"""Linear layers and embeddings."""

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

from docs.entries import RNGS, Entry, Layer, integers, normal

TOKENS = integers(2, 3, below=5)

ENTRIES = [
    Layer("linear layer", lambda: nn.Linear(5, 4), lambda: nnx.Linear(5, 4, rngs=RNGS),
          (normal(3, 5),)),
    Layer("linear layer, no bias", lambda: nn.Linear(5, 4, bias=False),
          lambda: nnx.Linear(5, 4, rngs=RNGS), (normal(3, 5),)),
    Entry("linear function", lambda x, w: F.linear(x, w), lambda x, w: x @ w.T,
          (normal(3, 5), normal(4, 5, seed=1))),
    Entry("bilinear function", lambda x, y, w: F.bilinear(x, y, w),
          lambda x, y, w: jnp.einsum("ni,oij,nj->no", x, w, y),
          (normal(3, 5), normal(3, 4, seed=1), normal(2, 5, 4, seed=2))),
    Layer("embedding", lambda: nn.Embedding(5, 4), lambda: nnx.Embed(5, 4, rngs=RNGS), (TOKENS,)),
    Layer("embedding, padding_idx", lambda: nn.Embedding(5, 4, padding_idx=0),
          lambda: nnx.Embed(5, 4, rngs=RNGS), (TOKENS,),
          note="PyTorch's row of padding_idx gets no gradient"),
    Entry("embedding as a product", lambda t, w: F.embedding(t, w),
          lambda t, w: jax.nn.one_hot(t, 5, dtype=w.dtype) @ w, (TOKENS, normal(5, 4))),
    Entry("embedding, mean of a bag", lambda t, w: F.embedding_bag(t, w),
          lambda t, w: w[t].mean(1), (TOKENS, normal(5, 4))),
    Layer("dropout in eval mode", lambda: nn.Dropout(0.5), lambda: nnx.Dropout(0.5, rngs=RNGS),
          (normal(3, 5),)),
    Entry("flatten of images", lambda x: torch.flatten(x, 1),
          lambda x: x.transpose(0, 2, 3, 1).reshape(2, -1), (normal(2, 3, 4, 5),),
          with_options=lambda x: x.reshape(2, -1)),
]  # fmt: skip
