"""Small pairs with weights to convert: in NNX, in Linen, and as a function of a tree."""

from pathlib import Path
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.torch
import torch
from flax import nnx
from torch import Tensor, nn

from parity import Pair

IMAGES = np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype(np.float32)
TOKENS = np.random.default_rng(1).normal(size=(2, 5, 8)).astype(np.float32)


class TorchNet(nn.Module):
    """A convolution, a normalisation with buffers, and a linear layer behind a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.norm(self.conv(x))).flatten(1))


class FlaxNet(nnx.Module):
    """The same for images in NHWC."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), padding="VALID", rngs=rngs)
        self.norm = nnx.BatchNorm(4, epsilon=1e-5, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(64, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.norm(self.conv(x)))
        return self.head(self.dropout(x.reshape(len(x), -1)))


class LinenNet(linen.Module):
    """Likewise."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Conv(4, (3, 3), padding="VALID")(x)
        x = linen.relu(linen.BatchNorm(use_running_average=True, epsilon=1e-5)(x))
        return linen.Dense(5)(x.reshape(len(x), -1))


class Attention(nn.Module):
    """Attention with queries, keys and values stacked in one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(torch.softmax(q @ k.transpose(1, 2) / 8**0.5, -1) @ v)


def attention(params: Any, x: Any) -> Any:
    """Compute the same with a layer for each."""
    q, k, v = (x @ params[name]["w"] + params[name]["b"] for name in ("query", "key", "value"))
    mixed = jax.nn.softmax(q @ k.transpose(0, 2, 1) / 8**0.5, -1) @ v
    return mixed @ params["layers"][0]["w"] + params["layers"][0]["b"]


def _nhwc(net: Any, x: Any) -> Any:
    return net(x.transpose(0, 2, 3, 1))


def torch_net() -> TorchNet:
    """Return the network with running statistics and counts of its own."""
    torch.manual_seed(0)
    net = TorchNet()
    with torch.no_grad():
        net(torch.randn(4, 3, 6, 6))
    return net.eval()


def nnx_pair() -> Pair:
    """Return a pair with NNX."""
    return Pair(torch=torch_net(), jax=FlaxNet(nnx.Rngs(0)), inputs=(IMAGES,), call_jax=_nhwc)


def linen_pair() -> Pair:
    """Return a pair with Linen."""
    net = LinenNet()
    variables = net.init(jax.random.key(0), jnp.zeros((1, 6, 6, 3)))
    return Pair(torch=torch_net(), jax=(net, variables), inputs=(IMAGES,), call_jax=_nhwc)


def tree_pair() -> Pair:
    """Return a pair with a function of a tree."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    def layer() -> dict[str, np.ndarray]:
        return {"w": rng.normal(size=(8, 8)).astype("f4"), "b": rng.normal(size=8).astype("f4")}

    params = {"query": layer(), "key": layer(), "value": layer(), "layers": [layer()]}
    return Pair(torch=Attention(), jax=(attention, params), inputs=(TOKENS,))


PAIRS = {"nnx": nnx_pair, "linen": linen_pair, "tree": tree_pair}


State = dict[str, Tensor]


def trained(pair: Pair, dtype: torch.dtype = torch.float32) -> State:
    """Return other weights than the pair has, as a checkpoint would."""
    torch.manual_seed(7)
    found = {}
    for name, value in pair.torch.state_dict().items():
        drawn = torch.rand(value.shape) + 0.5
        found[name] = drawn.to(dtype) if value.is_floating_point() else value + 41
    return found


def bits(values: State) -> dict[str, tuple[Any, ...]]:
    """Return what has to be the same of a state_dict whose counts are the model's own."""
    every = {n: x for n, x in values.items() if "num_batches" not in n}
    return {n: (x.dtype, x.shape, bytes(x.flatten().view(torch.uint8).tolist()))
            for n, x in every.items()}  # fmt: skip


def loaded(path: Path) -> State:
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)
    return safetensors.torch.load_file(path)


def saved(path: Path, values: State) -> Path:
    if path.suffix == ".pt":
        torch.save(values, path)
    else:
        safetensors.torch.save_file(values, path)
    return path
