"""Normalisation."""

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

from docs.entries import RNGS, Entry, LastLayer, Layer, TrainedLayer, normal

X = (0.1 * normal(3, 6),)
IMAGES = (0.1 * normal(2, 4, 3, 5),)

ENTRIES = [
    Layer("layer norm", lambda: nn.LayerNorm(6), lambda: nnx.LayerNorm(6, rngs=RNGS), X,
          with_options=lambda: nnx.LayerNorm(6, epsilon=1e-5, rngs=RNGS)),
    Layer("rms norm", lambda: nn.RMSNorm(6), lambda: nnx.RMSNorm(6, rngs=RNGS), X),
    Layer("rms norm, epsilon given", lambda: nn.RMSNorm(6, eps=1e-6),
          lambda: nnx.RMSNorm(6, rngs=RNGS), X),
    LastLayer("group norm", lambda: nn.GroupNorm(2, 4),
              lambda: nnx.GroupNorm(4, num_groups=2, rngs=RNGS), IMAGES,
              with_options=lambda: nnx.GroupNorm(4, num_groups=2, epsilon=1e-5, rngs=RNGS)),
    LastLayer("instance norm", lambda: nn.InstanceNorm2d(4, affine=True),
              lambda: nnx.InstanceNorm(4, rngs=RNGS), IMAGES,
              with_options=lambda: nnx.InstanceNorm(4, epsilon=1e-5, rngs=RNGS)),
    LastLayer("instance norm by default", lambda: nn.InstanceNorm2d(4),
              lambda: nnx.InstanceNorm(4, epsilon=1e-5, rngs=RNGS), IMAGES),
    LastLayer("batch norm in eval mode", lambda: nn.BatchNorm2d(4),
              lambda: nnx.BatchNorm(4, rngs=RNGS), IMAGES),
    TrainedLayer("batch norm in train mode", lambda: nn.BatchNorm1d(6),
                 lambda: nnx.BatchNorm(6, rngs=RNGS), X),
    TrainedLayer("batch norm in train mode, same momentum", lambda: nn.BatchNorm1d(6),
                 lambda: nnx.BatchNorm(6, momentum=0.9, rngs=RNGS), X),
    Entry("unit length", lambda x: F.normalize(x, dim=-1),
          lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), X),
    Entry("unit length of zeros", lambda x: F.normalize(x, dim=-1),
          lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), (X[0] * 0,)),
    Entry("standard score", lambda x: (x - x.mean(-1, True)) / torch.sqrt(x.var(-1, keepdim=True)),
          lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True)), X,
          with_options=lambda x:
          (x - x.mean(-1, keepdims=True)) / x.std(-1, ddof=1, keepdims=True)),
    Entry("layer norm without weights", lambda x: F.layer_norm(x, (6,)),
          lambda x: jax.nn.standardize(x), X),
]  # fmt: skip
