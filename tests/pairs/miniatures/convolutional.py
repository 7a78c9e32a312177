"""Convolutional networks: strides, paddings, pooling, batch normalisation, flattening."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import torch.nn.functional as F
from flax import linen, nnx
from torch import Tensor, nn

from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import between, floats, inside, right, wrong

IMAGE = (0, 2, 3, 1)


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.fc = nn.Linear(12 * 3 * 4, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 2)
        x = self.conv2(x).relu()
        return self.fc(x.flatten(1))


class FlaxConvNet(nnx.Module):
    def __init__(self, epsilon: float, padding: Any, nchw: bool, rngs: nnx.Rngs) -> None:
        self.nchw = nchw
        self.stem = nnx.Conv(3, 8, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, epsilon=epsilon, rngs=rngs)
        self.conv = nnx.Conv(8, 12, (3, 3), strides=2, padding=padding, rngs=rngs)
        self.dense = nnx.Linear(12 * 3 * 4, 6, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.max_pool(jax.nn.relu(self.norm(self.stem(x))), (2, 2), strides=(2, 2))
        x = jax.nn.relu(self.conv(x))
        x = x.transpose(0, 3, 1, 2) if self.nchw else x
        return self.dense(x.reshape(x.shape[0], -1))


@right("cnn")
@right("cnn-flatten-nhwc", nchw=False)
@wrong("cnn-epsilon", inside("bn1", "epsilon"), epsilon=1e-3)
@wrong("cnn-same-padding", inside("conv2", "padding"), padding="SAME")
def cnn(seed: int, *, epsilon: float = 1e-5, padding: Any = 1, nchw: bool = True) -> Pair:
    """Its maps are 3 high and 4 wide before the Linear; NHWC order is a matter of its weight."""
    return Pair(
        torch=ConvNet(),
        jax=FlaxConvNet(epsilon, padding, nchw, nnx.Rngs(seed)),
        inputs=(floats(seed, 2, 3, 12, 16),),
        call_jax=lambda net, x: net(x.transpose(IMAGE)),
    )


class Cumulative(nn.Module):
    """A running sum over flattened maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3)
        self.fc = nn.Linear(6 * 5 * 5, 5)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.conv(x).tanh().flatten(1)
        return self.fc(flat.cumsum(-1))


def cumulative_port(params: dict[str, Any], x: Any, order: str) -> Any:
    y = jax.lax.conv_general_dilated(
        x, params["k"], (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NHWC")
    )
    y = jnp.tanh(y + params["kb"])
    y = y.transpose(0, 3, 1, 2) if order == "NCHW" else y
    return jnp.cumsum(y.reshape(y.shape[0], -1), -1) @ params["w"] + params["wb"]


@right("flatten-cumsum")
@wrong("flatten-cumsum-order", between("conv", "fc", "flatten-order"), order="NHWC")
def flattened_sum(seed: int, *, order: str = "NCHW") -> Pair:
    """No permutation of the weight can undo another order, since the running sum has it too."""
    params = {
        "k": jnp.asarray(floats(seed, 6, 4, 3, 3)) / 6,
        "kb": jnp.asarray(floats(seed, 6)),
        "w": jnp.asarray(floats(seed, 150, 5)) / 12,
        "wb": jnp.asarray(floats(seed, 5)),
    }
    port = (partial(cumulative_port, order=order), params)
    return Pair(torch=Cumulative(), jax=port, inputs=(floats(seed, 2, 4, 7, 7),))


class ResidualBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.downsample = nn.Sequential(
            nn.Conv2d(8, 16, 1, stride=2, bias=False), nn.BatchNorm2d(16)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.downsample(x)).relu()


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.layer1 = ResidualBlock()
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.bn(self.stem(x)).relu(), 3, stride=2, padding=1)
        return self.fc(self.layer1(x).mean((2, 3)))


class LinenResNet(linen.Module):
    stem: Any = 3
    pool: Any = 1
    relu_first: bool = False

    @linen.compact
    def __call__(self, x: Any, train: bool) -> Any:
        conv = partial(linen.Conv, use_bias=False)
        norm = partial(linen.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        x = x.transpose(IMAGE)
        x = conv(8, (7, 7), 2, padding=self.stem, name="conv_init")(x)
        x = jax.nn.relu(norm(name="bn_init")(x))
        pads: Any = self.pool if isinstance(self.pool, str) else [(self.pool, self.pool)] * 2
        x = linen.max_pool(x, (3, 3), strides=(2, 2), padding=pads)
        y = conv(16, (3, 3), 2, padding=1)(x)
        y = conv(16, (3, 3), padding=1)(jax.nn.relu(norm()(y)))
        y = norm()(y)
        short = norm(name="norm_proj")(conv(16, (1, 1), 2, name="conv_proj")(x))
        x = jax.nn.relu(y) + short if self.relu_first else jax.nn.relu(y + short)
        return linen.Dense(10)(x.mean((1, 2)))


@right("resnet")
@wrong("resnet-stem", inside("stem", "padding"), stem="SAME")
@wrong("resnet-pool", between("bn", "layer1.conv1", "pool-padding"), pool="SAME")
@wrong("resnet-order", between("layer1.downsample.1", "fc", "order"), relu_first=True)
def resnet(seed: int, **options: Any) -> Pair:
    x = floats(seed, 2, 3, 16, 16)
    net = LinenResNet(**options)
    variables = net.init(jax.random.key(seed), x, train=False)
    return Pair(
        torch=ResNet(),
        jax=(net, variables),
        inputs=(x,),
        call_jax=lambda net, x: net(x, train=False),
        train_jax=lambda net, x: net(x, train=True),
    )


class Pooled(nn.Module):
    """Convolutions with dilation and groups, and each kind of pooling that two sides can read
    differently."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 8, 3, padding=2, dilation=2)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.c = nn.Conv2d(8, 12, 1)
        self.d = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(F.hardswish(self.a(x)), 3, stride=1, padding=1)
        x = self.c(self.b(x)[:, :, ::2, ::2]).relu()
        return self.d(F.max_pool2d(x, 2, ceil_mode=True).mean((2, 3)))


class FlaxPooled(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, dilation: int, count: bool, ceil: bool, phase: int) -> None:
        self.count, self.ceil, self.phase = count, ceil, phase
        self.dilated = nnx.Conv(4, 8, (3, 3), padding=dilation, kernel_dilation=dilation, rngs=rngs)
        self.depthwise = nnx.Conv(8, 8, (3, 3), padding=1, feature_group_count=8, rngs=rngs)
        self.pointwise = nnx.Conv(8, 12, (1, 1), rngs=rngs)
        self.classifier = nnx.Linear(12, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = jax.nn.hard_swish(self.dilated(x))
        pads: Any = ((1, 1), (1, 1))
        x = nnx.avg_pool(x, (3, 3), padding=pads, count_include_pad=self.count)
        x = self.depthwise(x)[:, self.phase :: 2, self.phase :: 2]
        pads = "SAME" if self.ceil else "VALID"
        x = nnx.max_pool(jax.nn.relu(self.pointwise(x)), (2, 2), strides=(2, 2), padding=pads)
        return self.classifier(x.mean((1, 2)))


@right("pooled")
@wrong("pooled-dilation", inside("a", "dilation"), dilation=1)
@wrong("pooled-count", between("a", "b", "count-include-pad"), count=False)
@wrong("pooled-ceil", between("c", "d", "ceil-mode"), ceil=False)
@wrong("pooled-phase", between("b", "c", "stride-phase"), phase=1)
def pooled(
    seed: int, *, dilation: int = 2, count: bool = True, ceil: bool = True, phase: int = 0
) -> Pair:
    return Pair(
        torch=Pooled(),
        jax=FlaxPooled(nnx.Rngs(seed), dilation, count, ceil, phase),
        inputs=(floats(seed, 2, 4, 10, 10),),
        call_jax=lambda net, x: net(x.transpose(IMAGE)),
    )
