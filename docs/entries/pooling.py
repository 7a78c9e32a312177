"""Pooling, padding and resizing."""
# Flax takes pairs as padding, and annotates a string:
# pyright: reportArgumentType=false

# pyright: reportArgumentType=false
# Flax takes pairs as padding, which its signature does not say.

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx

from docs.entries import Entry, nchw, nhwc, normal

IMAGES = (normal(2, 3, 8, 6),)
ODD = (normal(2, 3, 7, 9),)
TIES = (normal(2, 3, 8, 6).round(),)
SIGNAL = (normal(2, 3, 5),)

ENTRIES = [
    Entry("maximum", lambda x: F.max_pool2d(x, 2),
          lambda x: nchw(nnx.max_pool(nhwc(x), (2, 2), (2, 2))), IMAGES),
    Entry("maximum, also of ties", lambda x: F.max_pool2d(x, 2),
          lambda x: nchw(nnx.max_pool(nhwc(x), (2, 2), (2, 2))), TIES),
    Entry("maximum by reshaping, also of ties", lambda x: F.max_pool2d(x, 2),
          lambda x: x.reshape(2, 3, 4, 2, 3, 2).max((3, 5)), TIES,
          with_options=lambda x: nchw(nnx.max_pool(nhwc(x), (2, 2), (2, 2))),
          note="`max` shares the gradient among ties, PyTorch gives it to the first"),
    Entry("maximum, kernel 3, stride 2", lambda x: F.max_pool2d(x, 3, 2, padding=1),
          lambda x: nchw(nnx.max_pool(nhwc(x), (3, 3), (2, 2), "SAME")), IMAGES,
          with_options=lambda x: nchw(nnx.max_pool(nhwc(x), (3, 3), (2, 2), ((1, 1), (1, 1))))),
    Entry("maximum, ceil_mode", lambda x: F.max_pool2d(x, 2, ceil_mode=True),
          lambda x: nchw(nnx.max_pool(nhwc(x), (2, 2), (2, 2), "SAME")), ODD),
    Entry("average", lambda x: F.avg_pool2d(x, 2),
          lambda x: nchw(nnx.avg_pool(nhwc(x), (2, 2), (2, 2))), IMAGES),
    Entry("average, padded", lambda x: F.avg_pool2d(x, 3, 2, padding=1),
          lambda x: nchw(nnx.avg_pool(nhwc(x), (3, 3), (2, 2), ((1, 1), (1, 1)))), IMAGES),
    Entry("average, padding not counted",
          lambda x: F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False),
          lambda x: nchw(nnx.avg_pool(nhwc(x), (3, 3), (2, 2), ((1, 1), (1, 1)))), IMAGES,
          with_options=lambda x: nchw(nnx.avg_pool(
              nhwc(x), (3, 3), (2, 2), ((1, 1), (1, 1)), count_include_pad=False))),
    Entry("average, SAME", lambda x: F.avg_pool2d(x, 3, 2, padding=1),
          lambda x: nchw(nnx.avg_pool(nhwc(x), (3, 3), (2, 2), "SAME")), IMAGES,
          with_options=lambda x: nchw(nnx.avg_pool(nhwc(x), (3, 3), (2, 2), ((1, 1), (1, 1))))),
    Entry("global average", lambda x: F.adaptive_avg_pool2d(x, 1)[..., 0, 0],
          lambda x: x.mean((2, 3)), IMAGES),
    Entry("adaptive average, 8 × 6 to 4 × 3", lambda x: F.adaptive_avg_pool2d(x, (4, 3)),
          lambda x: nchw(nnx.avg_pool(nhwc(x), (2, 2), (2, 2))), IMAGES),
    Entry("padding, constant", lambda x: F.pad(x, (1, 2)),
          lambda x: jnp.pad(x, ((0, 0), (0, 0), (1, 2))), SIGNAL),
    Entry("padding, reflected", lambda x: F.pad(x, (1, 2), mode="reflect"),
          lambda x: jnp.pad(x, ((0, 0), (0, 0), (1, 2)), mode="symmetric"), SIGNAL,
          with_options=lambda x: jnp.pad(x, ((0, 0), (0, 0), (1, 2)), mode="reflect"),
          note="`symmetric` repeats the value at the edge"),
    Entry("padding, edge repeated", lambda x: F.pad(x, (1, 2), mode="replicate"),
          lambda x: jnp.pad(x, ((0, 0), (0, 0), (1, 2)), mode="edge"), SIGNAL),
    Entry("padding, circular", lambda x: F.pad(x, (1, 2), mode="circular"),
          lambda x: jnp.pad(x, ((0, 0), (0, 0), (1, 2)), mode="wrap"), SIGNAL),
    Entry("padding, last axis first", lambda x: F.pad(x, (1, 1, 2, 2)),
          lambda x: jnp.pad(x, ((0, 0), (2, 2), (1, 1))), SIGNAL),
    Entry("padding by negative numbers", lambda x: F.pad(x, (-1, 2)),
          lambda x: jax.lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 0), (-1, 2, 0))), SIGNAL),
    Entry("resize, nearest, by 2", lambda x: F.interpolate(x, (16, 12)),
          lambda x: jax.image.resize(x, (2, 3, 16, 12), "nearest"), IMAGES),
    Entry("resize, nearest, 7 × 9 to 5 × 4", lambda x: F.interpolate(x, (5, 4)),
          lambda x: jax.image.resize(x, (2, 3, 5, 4), "nearest"), ODD,
          with_options=lambda x: x[:, :, jnp.arange(5) * 7 // 5][..., jnp.arange(4) * 9 // 4]),
    Entry("resize, nearest-exact", lambda x: F.interpolate(x, (5, 4), mode="nearest-exact"),
          lambda x: jax.image.resize(x, (2, 3, 5, 4), "nearest"), ODD),
    Entry("resize, bilinear, larger", lambda x: F.interpolate(x, (9, 11), mode="bilinear"),
          lambda x: jax.image.resize(x, (2, 3, 9, 11), "bilinear"), IMAGES),
    Entry("resize, bilinear, smaller", lambda x: F.interpolate(x, (4, 3), mode="bilinear"),
          lambda x: jax.image.resize(x, (2, 3, 4, 3), "bilinear"), IMAGES,
          with_options=lambda x: jax.image.resize(x, (2, 3, 4, 3), "bilinear", antialias=False)),
    Entry("resize, bilinear, antialias",
          lambda x: F.interpolate(x, (4, 3), mode="bilinear", antialias=True),
          lambda x: jax.image.resize(x, (2, 3, 4, 3), "bilinear"), IMAGES),
    Entry("resize, bilinear, align_corners",
          lambda x: F.interpolate(x, (9, 11), mode="bilinear", align_corners=True),
          lambda x: jax.image.resize(x, (2, 3, 9, 11), "bilinear"), IMAGES,
          with_options=lambda x: jax.image.scale_and_translate(
              x, (2, 3, 9, 11), (2, 3), jnp.array([8 / 7, 10 / 5]),
              jnp.array([0.5 - 4 / 7, 0.5 - 5 / 5]), "linear", antialias=False)),
    Entry("resize, bicubic, larger", lambda x: F.interpolate(x, (9, 11), mode="bicubic"),
          lambda x: jax.image.resize(x, (2, 3, 9, 11), "bicubic"), IMAGES),
    Entry("resize, bicubic, antialias",
          lambda x: F.interpolate(x, (4, 3), mode="bicubic", antialias=True),
          lambda x: jax.image.resize(x, (2, 3, 4, 3), "bicubic"), IMAGES),
    Entry("samples between pixels, of a grid",
          lambda x, g: F.grid_sample(x[None], g[None], align_corners=True)[0],
          lambda x, g: jnp.stack([jax.scipy.ndimage.map_coordinates(
              c, [(g[..., 1] + 1) * 3.5, (g[..., 0] + 1) * 2.5], order=1) for c in x]),
          (IMAGES[0][0], 0.3 * normal(4, 5, 2, seed=1))),
    Entry("flip", lambda x: torch.flip(x, (-1,)), lambda x: jnp.flip(x, -1), SIGNAL),
]  # fmt: skip
