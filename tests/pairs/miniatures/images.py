"""Images that grow and shrink: transposed convolutions, U-Net, resizing, pixel shuffle."""

from typing import Any

import jax
import jax.image
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from einops import rearrange
from flax import nnx
from torch import Tensor, nn

from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import between, floats, inside, right, wrong

IMAGE = (0, 2, 3, 1)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 8 * 3 * 3)
        self.up1 = nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1)
        self.norm = nn.GroupNorm(3, 6)
        self.up2 = nn.ConvTranspose2d(6, 2, 3, stride=2, padding=1, output_padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.fc(z).unflatten(1, (8, 3, 3))
        return self.up2(F.elu(self.norm(self.up1(x)))).sigmoid()


class FlaxDecoder(nnx.Module):
    def __init__(
        self, rngs: nnx.Rngs, flipped: bool, epsilon: float, last: tuple[int, int]
    ) -> None:
        self.project = nnx.Linear(10, 8 * 3 * 3, rngs=rngs)
        self.deconv0 = nnx.ConvTranspose(
            8, 6, (4, 4), 2, padding=2, transpose_kernel=flipped, rngs=rngs
        )
        self.groups = nnx.GroupNorm(6, num_groups=3, epsilon=epsilon, rngs=rngs)
        self.deconv1 = nnx.ConvTranspose(
            6, 2, (3, 3), 2, padding=(last, last), transpose_kernel=True, rngs=rngs
        )

    def __call__(self, z: Any) -> Any:
        x = self.project(z).reshape(-1, 8, 3, 3).transpose(IMAGE)
        x = jax.nn.elu(self.groups(self.deconv0(x)))
        return jax.nn.sigmoid(self.deconv1(x))


@right("decoder")
@wrong("decoder-unflipped", inside("up1", "kernel-flipped"), flipped=False)
@wrong("decoder-padding", inside("up2", "padding"), last=(2, 1))
@wrong("decoder-epsilon", inside("norm", "epsilon"), epsilon=1e-6)
def decoder(
    seed: int, *, flipped: bool = True, epsilon: float = 1e-5, last: tuple[int, int] = (1, 2)
) -> Pair:
    """A fractional stride makes k − 1 − p of each padding, and the output's is at its end."""
    flax = FlaxDecoder(nnx.Rngs(seed), flipped, epsilon, last)
    return Pair(torch=Decoder(), jax=flax, inputs=(floats(seed, 3, 10),))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, padding=1)
        self.inorm = nn.InstanceNorm2d(8, affine=True)
        self.middle = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
        self.act = nn.PReLU()
        self.up = nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.inorm(self.down(x)).relu()
        y = self.act(self.middle(F.max_pool2d(skip, 2)))
        y = F.interpolate(y, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        return self.up(torch.cat((y, skip), 1))


def aligned(x: Any, height: int, width: int) -> Any:
    """Resize with the corners of both images on each other."""

    def along(x: Any, axis: int, size: int) -> Any:
        at = jnp.arange(size) * ((x.shape[axis] - 1) / (size - 1))
        low = jnp.clip(jnp.floor(at).astype(int), 0, x.shape[axis] - 2)
        shape = [1] * x.ndim
        shape[axis] = size
        part = (at - low).reshape(shape).astype(x.dtype)
        return jnp.take(x, low, axis) * (1 - part) + jnp.take(x, low + 1, axis) * part

    return along(along(x, 1, height), 2, width)


class FlaxUNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, align: bool, epsilon: float) -> None:
        self.align = align
        self.enc = nnx.Conv(3, 8, (3, 3), padding=1, rngs=rngs)
        self.norm = nnx.InstanceNorm(8, epsilon=epsilon, rngs=rngs)
        self.bottleneck = nnx.Conv(8, 8, (3, 3), padding="CIRCULAR", rngs=rngs)
        self.prelu = nnx.PReLU(0.25)
        self.dec = nnx.Conv(16, 4, (3, 3), padding=1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        skip = jax.nn.relu(self.norm(self.enc(x)))
        y = self.prelu(self.bottleneck(nnx.max_pool(skip, (2, 2), strides=(2, 2))))
        b, h, w, _ = skip.shape
        y = aligned(y, h, w) if self.align else jax.image.resize(y, (b, h, w, 8), "bilinear")
        return self.dec(jnp.concatenate((y, skip), -1))


@right("unet")
@wrong("unet-align", between("act", "up", "resize-align-corners"), align=True)
@wrong("unet-epsilon", inside("inorm", "epsilon"), epsilon=1e-6)
def unet(seed: int, *, align: bool = False, epsilon: float = 1e-5) -> Pair:
    return Pair(
        torch=UNet(),
        jax=FlaxUNet(nnx.Rngs(seed), align, epsilon),
        inputs=(floats(seed, 2, 3, 8, 10),),
        call_jax=lambda net, x: net(x.transpose(IMAGE)).transpose(0, 3, 1, 2),
    )


class Super(nn.Module):
    """Super-resolution: pixel shuffle, and a resized input added to it."""

    def __init__(self, antialias: bool) -> None:
        super().__init__()
        self.antialias = antialias
        self.features = nn.Conv2d(2, 8, 3, padding=1, padding_mode="reflect")
        self.refine = nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x).relu()
        y = F.pixel_shuffle(features, 2)
        small = F.interpolate(
            x, size=(16, 18), mode="bicubic", align_corners=False, antialias=self.antialias
        )
        return self.refine(y + small), features.mean((2, 3))


class FlaxSuper(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, order: str) -> None:
        self.order = order
        self.body = nnx.Conv(2, 8, (3, 3), padding="VALID", rngs=rngs)
        self.tail = nnx.Conv(2, 2, (3, 3), padding="VALID", rngs=rngs)

    def __call__(self, x: Any) -> Any:
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        features = jax.nn.relu(self.body(padded))
        y = rearrange(features, f"b h w ({self.order}) -> b (h p) (w q) c", p=2, q=2)
        y = self.tail(y + jax.image.resize(x, y.shape, "cubic"))
        return y.transpose(0, 3, 1, 2), features.mean((1, 2))


@right("super-resolution")
@wrong("super-shuffle", between("features", "refine", "transposed"), order="c q p")
@wrong("super-cubic", between("features", "refine", "resize-cubic"), antialias=False)
def super_resolution(seed: int, *, antialias: bool = True, order: str = "c p q") -> Pair:
    """PyTorch's bicubic filter has a = −0.5 where it is antialiased, and −0.75 where it is not."""
    return Pair(
        torch=Super(antialias),
        jax=FlaxSuper(nnx.Rngs(seed), order),
        inputs=(floats(seed, 2, 2, 8, 9),),
        call_jax=lambda net, x: net(x.transpose(IMAGE)),
    )


class Thumbnail(nn.Module):
    """Convolves a smaller copy of the image."""

    def __init__(self, antialias: bool, mode: str) -> None:
        super().__init__()
        self.antialias, self.mode = antialias, mode
        self.before = nn.Conv2d(3, 3, 1)
        self.conv = nn.Conv2d(3, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        options: dict[str, Any] = {"antialias": self.antialias} if self.mode == "bilinear" else {}
        return self.conv(F.interpolate(self.before(x), size=(5, 7), mode=self.mode, **options))


def thumbnail_port(params: Any, x: Any, mode: str) -> Any:
    x = jnp.einsum("bchw,cd->bhwd", x, params["mix"]["w"]) + params["mix"]["b"]
    x = jax.image.resize(x, (x.shape[0], 5, 7, 3), mode)
    y = jax.lax.conv_general_dilated(
        x, params["conv"]["w"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NCHW")
    )
    return y + params["conv"]["b"][:, None, None]


@right("thumbnail")
@right("thumbnail-nearest", mode="nearest-exact")
@wrong("thumbnail-aliased", between("before", "conv", "resize-antialias"), antialias=False)
@wrong("thumbnail-nearest-floor", between("before", "conv", "resize-nearest"), mode="nearest")
def thumbnail(seed: int, *, antialias: bool = True, mode: str = "bilinear") -> Pair:
    params = {
        "mix": {"w": jnp.asarray(floats(seed, 3, 3)), "b": jnp.zeros(3)},
        "conv": {"w": jnp.asarray(floats(seed, 3, 3, 3, 6)), "b": jnp.zeros(6)},
    }

    def port(params: Any, x: Any) -> Any:
        return thumbnail_port(params, x, mode.removesuffix("-exact"))

    x = floats(seed, 2, 3, 12, 10)
    return Pair(torch=Thumbnail(antialias, mode), jax=(port, params), inputs=(x,))
