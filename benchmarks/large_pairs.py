"""Pairs of the size that people port, to see what a proof of them costs.

/usr/bin/env time -v parity prove benchmarks/large_pairs.py:resnet50
/usr/bin/env time -v parity prove benchmarks/large_pairs.py:vit_base

`vit_12`, `vit_24` and `vit_48` are narrow ones of as many blocks.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import Tensor, nn

from parity import Pair

DEPTHS = (3, 4, 6, 3)
"""ResNet-50's (He et al. 2016)."""


def _pair(ours: nn.Module, theirs: nnx.Module) -> Pair:
    images = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    return Pair(torch=ours, jax=theirs, inputs=(images,),
                call_jax=lambda net, x: net(x.transpose(0, 2, 3, 1)))  # fmt: skip


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.down = nn.Identity()
        if stride > 1 or inputs != 4 * width:
            conv = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.down = nn.Sequential(conv, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.down(x))


class _ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(*(_Bottleneck(*sizes) for sizes in _sizes()))
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.bn(self.conv(x))))
        return self.fc(self.blocks(x).mean((2, 3)))


def _sizes() -> list[tuple[int, int, int]]:
    """Return each block's inputs, width and stride."""
    sizes, inputs = [], 64
    for stage, depth in enumerate(DEPTHS):
        for block in range(depth):
            width = 64 * 2**stage
            sizes.append((inputs, width, 2 if stage and not block else 1))
            inputs = 4 * width
    return sizes


def _conv(inputs: int, outputs: int, size: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(inputs, outputs, (size, size), strides=stride, padding=size // 2,
                    use_bias=False, rngs=rngs)  # fmt: skip


def _norm(features: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(features, epsilon=1e-5, rngs=rngs)


class _FlaxBottleneck(nnx.Module):
    def __init__(self, inputs: int, width: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv1, self.bn1 = _conv(inputs, width, 1, 1, rngs), _norm(width, rngs)
        self.conv2, self.bn2 = _conv(width, width, 3, stride, rngs), _norm(width, rngs)
        self.conv3, self.bn3 = _conv(width, 4 * width, 1, 1, rngs), _norm(4 * width, rngs)
        self.projected = stride > 1 or inputs != 4 * width
        if self.projected:
            self.down = _conv(inputs, 4 * width, 1, stride, rngs)
            self.down_bn = _norm(4 * width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = jax.nn.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return jax.nn.relu(y + (self.down_bn(self.down(x)) if self.projected else x))


class _FlaxResNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv, self.bn = _conv(3, 64, 7, 2, rngs), _norm(64, rngs)
        self.blocks = nnx.List([_FlaxBottleneck(*sizes, rngs) for sizes in _sizes()])
        self.fc = nnx.Linear(2048, 1000, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.bn(self.conv(x)))
        padding: Any = ((1, 1), (1, 1))
        x = nnx.max_pool(x, (3, 3), (2, 2), padding)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((1, 2)))


def resnet50() -> Pair:
    """Return ResNet-50, of 25.6 million parameters, for two images of 224×224."""
    return _pair(_ResNet(), _FlaxResNet(nnx.Rngs(0)))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class _ViT(nn.Module):
    def __init__(self, blocks: int, width: int, heads: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 16, 16)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.pos = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
        return self.head(self.norm(self.blocks(x))[:, 0])


class _FlaxBlock(nnx.Module):
    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.ln1, self.ln2 = (nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs) for _ in range(2))
        self.mha = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.mha(self.ln1(x))
        return x + self.down(jax.nn.gelu(self.up(self.ln2(x)), approximate=False))


class _FlaxViT(nnx.Module):
    def __init__(self, blocks: int, width: int, heads: int, rngs: nnx.Rngs) -> None:
        sizes: Any = {"kernel_size": (16, 16), "strides": (16, 16), "padding": "VALID"}
        self.patches = nnx.Conv(3, width, **sizes, rngs=rngs)
        self.cls = nnx.Param(jnp.zeros((1, 1, width)))
        self.pos = nnx.Param(jnp.zeros((1, 197, width)))
        self.layers = nnx.List([_FlaxBlock(width, heads, rngs) for _ in range(blocks)])
        self.ln = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs)
        self.out = nnx.Linear(width, 1000, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.patches(x).reshape(len(x), 196, -1)
        cls = jnp.broadcast_to(self.cls[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([cls, x], 1) + self.pos[...]
        for layer in self.layers:
            x = layer(x)
        return self.out(self.ln(x)[:, 0])


def _vit(blocks: int, width: int, heads: int) -> Pair:
    return _pair(_ViT(blocks, width, heads), _FlaxViT(blocks, width, heads, nnx.Rngs(0)))


def vit_base() -> Pair:
    """Return ViT-B/16, of 86.6 million parameters, for two images of 224×224."""
    return _vit(12, 768, 12)


def vit_12() -> Pair:
    """Return a ViT of 12 blocks of width 96."""
    return _vit(12, 96, 4)


def vit_24() -> Pair:
    """Return a ViT of 24 blocks of width 96."""
    return _vit(24, 96, 4)


def vit_48() -> Pair:
    """Return a ViT of 48 blocks of width 96."""
    return _vit(48, 96, 4)
