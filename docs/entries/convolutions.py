"""Convolutions."""

import jax
import torch.nn.functional as F
from flax import nnx
from torch import nn

from docs.entries import RNGS, Entry, LastLayer, normal

SIGNAL = (normal(2, 3, 9),)
IMAGES = (normal(2, 3, 8, 10),)
KERNEL = (*IMAGES, normal(4, 3, 3, 3, seed=1))

ENTRIES = [
    LastLayer("1d, kernel 3", lambda: nn.Conv1d(3, 4, 3, padding=1),
              lambda: nnx.Conv(3, 4, 3, rngs=RNGS), SIGNAL),
    LastLayer("1d, causal", lambda: nn.Sequential(nn.ConstantPad1d((2, 0), 0), nn.Conv1d(3, 4, 3)),
              lambda: nnx.Conv(3, 4, 3, padding="CAUSAL", rngs=RNGS), SIGNAL),
    LastLayer("2d, kernel 3", lambda: nn.Conv2d(3, 4, 3, padding=1),
              lambda: nnx.Conv(3, 4, (3, 3), rngs=RNGS), IMAGES),
    LastLayer("2d, no padding", lambda: nn.Conv2d(3, 4, 3),
              lambda: nnx.Conv(3, 4, (3, 3), padding="VALID", rngs=RNGS), IMAGES),
    LastLayer("2d, kernel 1", lambda: nn.Conv2d(3, 4, 1),
              lambda: nnx.Conv(3, 4, (1, 1), rngs=RNGS), IMAGES),
    LastLayer("2d, even kernel, same", lambda: nn.Conv2d(3, 4, 4, padding="same"),
              lambda: nnx.Conv(3, 4, (4, 4), rngs=RNGS), IMAGES),
    LastLayer("2d, stride 2", lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1),
              lambda: nnx.Conv(3, 4, (3, 3), strides=2, rngs=RNGS), IMAGES,
              with_options=lambda: nnx.Conv(3, 4, (3, 3), strides=2, padding=1, rngs=RNGS)),
    LastLayer("2d, stride 2, odd size", lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1),
              lambda: nnx.Conv(3, 4, (3, 3), strides=2, rngs=RNGS), (normal(2, 3, 7, 9),)),
    LastLayer("2d, kernel 7, stride 2", lambda: nn.Conv2d(3, 4, 7, stride=2, padding=3),
              lambda: nnx.Conv(3, 4, (7, 7), strides=2, rngs=RNGS), IMAGES,
              with_options=lambda: nnx.Conv(3, 4, (7, 7), strides=2, padding=3, rngs=RNGS)),
    LastLayer("2d, patches of 2", lambda: nn.Conv2d(3, 4, 2, stride=2),
              lambda: nnx.Conv(3, 4, (2, 2), strides=2, rngs=RNGS), IMAGES),
    LastLayer("2d, dilated", lambda: nn.Conv2d(3, 4, 3, padding=2, dilation=2),
              lambda: nnx.Conv(3, 4, (3, 3), kernel_dilation=2, rngs=RNGS), IMAGES),
    LastLayer("2d, groups", lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),
              lambda: nnx.Conv(4, 6, (3, 3), feature_group_count=2, rngs=RNGS),
              (normal(2, 4, 5, 7),)),
    LastLayer("2d, depthwise", lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4),
              lambda: nnx.Conv(4, 4, (3, 3), feature_group_count=4, rngs=RNGS),
              (normal(2, 4, 5, 7),)),
    LastLayer("2d, circular padding",
              lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
              lambda: nnx.Conv(3, 4, (3, 3), padding="CIRCULAR", rngs=RNGS), IMAGES),
    LastLayer("2d, reflected padding",
              lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
              lambda: nnx.Conv(3, 4, (3, 3), padding="REFLECT", rngs=RNGS), IMAGES),
    LastLayer("3d, kernel 3", lambda: nn.Conv3d(2, 3, 3, padding=1),
              lambda: nnx.Conv(2, 3, (3, 3, 3), rngs=RNGS), (normal(1, 2, 4, 5, 6),)),
    Entry("function, channels first", lambda x, w: F.conv2d(x, w),
          lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), "VALID"), KERNEL),
    Entry("function, stride 2", lambda x, w: F.conv2d(x, w, stride=2, padding=1),
          lambda x, w: jax.lax.conv_general_dilated(x, w, (2, 2), "SAME"), KERNEL,
          with_options=lambda x, w: jax.lax.conv_general_dilated(x, w, (2, 2), [(1, 1), (1, 1)])),
    Entry("1d, as NumPy convolves", lambda x, w: F.conv1d(x[None], w[None])[0, 0],
          lambda x, w: jax.numpy.convolve(x[0], w[0], "valid"),
          (normal(1, 9), normal(1, 4, seed=1)),
          with_options=lambda x, w: jax.numpy.correlate(x[0], w[0], "valid")),
    LastLayer("transposed, kernel 3, stride 2", lambda: nn.ConvTranspose2d(3, 4, 3, stride=2),
              lambda: nnx.ConvTranspose(3, 4, (3, 3), strides=2, padding="VALID", rngs=RNGS),
              IMAGES,
              with_options=lambda: nnx.ConvTranspose(3, 4, (3, 3), strides=2, padding="VALID",
                                                     transpose_kernel=True, rngs=RNGS)),
    LastLayer("transposed, kernel 4, stride 2",
              lambda: nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1),
              lambda: nnx.ConvTranspose(3, 4, (4, 4), strides=2, transpose_kernel=True, rngs=RNGS),
              IMAGES),
    LastLayer("transposed, kernel 3, stride 2, output_padding",
              lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
              lambda: nnx.ConvTranspose(3, 4, (3, 3), strides=2, transpose_kernel=True, rngs=RNGS),
              IMAGES,
              with_options=lambda: nnx.ConvTranspose(
                  3, 4, (3, 3), strides=2, padding=((1, 2), (1, 2)), transpose_kernel=True,
                  rngs=RNGS)),
    Entry("patches of 3 as channels", lambda x: F.unfold(x, 3).unflatten(2, (6, 8)),
          lambda x: jax.lax.conv_general_dilated_patches(x, (3, 3), (1, 1), "VALID"), IMAGES),
    Entry("pixel shuffle", lambda x: F.pixel_shuffle(x, 2),
          lambda x: x.reshape(2, 2, 2, 3, 5, 6).transpose(0, 3, 4, 1, 5, 2).reshape(2, 3, 10, 12),
          (normal(2, 12, 5, 6),), with_options=lambda x:
          x.reshape(2, 3, 2, 2, 5, 6).transpose(0, 1, 4, 2, 5, 3).reshape(2, 3, 10, 12)),
]  # fmt: skip
