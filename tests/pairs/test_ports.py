"""What published ports do that simple ones do not, and that once raised a false alarm."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch
import torch.nn.functional as F
from flax import linen, nnx
from torch import Tensor, nn

from parity.pairs.judging import prove
from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import floats, tokens


class Statistics(linen.Module):
    """Asks whether its statistics may be changed, as some do in place of `train`."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        frozen = not self.is_mutable_collection("batch_stats")
        return linen.BatchNorm(use_running_average=frozen)(linen.Dense(5)(x))


def statistics(seed: int) -> Pair:
    net, x = Statistics(), floats(seed, 6, 4)
    ours = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)).eval()
    return Pair(torch=ours, jax=(net, net.init(jax.random.key(0), x)), inputs=(x,))


class Keyed(nnx.Module):
    def __init__(self) -> None:
        self.fc = nnx.Linear(4, 5, rngs=nnx.Rngs(0))

    def __call__(self, x: Any, key: Any) -> Any:
        return self.fc(x), key


def keyed(seed: int) -> Pair:
    def call(net: Any, x: Any) -> Any:
        return net(x, jax.random.key(0))[0]

    return Pair(torch=nn.Linear(4, 5), jax=Keyed(), inputs=(floats(seed, 3, 4),), call_jax=call)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mid, self.head = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(F.gelu(self.mid(self.embed(ids))))


class FlaxTied(nnx.Module):
    """Its table is the weight of its last layer."""

    def __init__(self) -> None:
        self.mid = nnx.Linear(6, 6, rngs=nnx.Rngs(0))
        self.linear = nnx.Linear(6, 9, rngs=nnx.Rngs(1))

    def __call__(self, ids: Any) -> Any:
        x = self.linear.kernel[...].T[ids]
        return self.linear(jax.nn.gelu(self.mid(x), approximate=False))


def tied(seed: int) -> Pair:
    return Pair(torch=Tied(), jax=FlaxTied(), inputs=(tokens(seed, 9, 2, 5),))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.q_proj(x) @ self.k_proj(x).mT / 8**0.5).softmax(-1)
        return x + self.out_proj(weights @ self.v_proj(x))


def stacked(seed: int, *, idle: bool = False) -> Pair:
    """Three layers, whose weights JAX holds stacked and takes one by one in a scan.

    `idle` is with a parameter that no layer uses.
    """
    names = ("query", "key", "value", "output")
    weights = {n: {"w": floats(i, 3, 8, 8), "b": floats(i, 3, 8)} for i, n in enumerate(names)}
    unused = {"rate": floats(seed, 3)} if idle else {}

    def run(weights: Any, x: Any) -> Any:
        def turn(x: Any, layer: Any) -> Any:
            q, k, v = (x @ layer[n]["w"].T + layer[n]["b"] for n in names[:3])
            mixed = jax.nn.softmax(q @ k.mT / 8**0.5, -1) @ v
            return x + mixed @ layer["output"]["w"].T + layer["output"]["b"], None

        return jax.lax.scan(turn, x, weights)[0]

    blocks = nn.Sequential(*(Attention() for _ in range(3)))
    return Pair(torch=blocks, jax=(run, weights | unused), inputs=(floats(seed, 2, 5, 8),))


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pre, self.attn = nn.Linear(8, 8), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre(x)
        return self.attn(x, x, x, need_weights=False)[0]


class Parts(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.query_proj, self.key_proj, self.value_proj, self.output_proj = (
            nnx.Linear(8, 8, rngs=rngs) for _ in range(4)
        )

    def __call__(self, query: Any, key: Any, value: Any) -> Any:
        heads = [
            layer(x).reshape(*x.shape[:-1], 2, 4)
            for layer, x in (
                (self.query_proj, query),
                (self.key_proj, key),
                (self.value_proj, value),
            )
        ]
        mixed = jax.nn.dot_product_attention(*heads)
        return self.output_proj(mixed.reshape(query.shape))


class FlaxWhole(nnx.Module):
    def __init__(self) -> None:
        self.pre, self.attn = nnx.Linear(8, 8, rngs=nnx.Rngs(0)), Parts()

    def __call__(self, x: Any) -> Any:
        x = self.pre(x)
        return self.attn(x, x, x)


def attention(seed: int) -> Pair:
    """PyTorch's own attention, three weights in one, against four layers in JAX."""
    return Pair(torch=Whole(), jax=FlaxWhole(), inputs=(floats(seed, 2, 5, 8),))


class Apart(nn.Module):
    def __init__(self, inputs: int = 8) -> None:
        super().__init__()
        self.pre, self.attn = nn.Linear(inputs, 8), Attention()

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(torch.tanh(self.pre(x)))


class Stacked(nnx.Module):
    def __init__(self) -> None:
        self.in_proj_weight = nnx.Param(jnp.asarray(floats(1, 24, 8)))
        self.in_proj_bias = nnx.Param(jnp.asarray(floats(2, 24)))
        self.out_proj = nnx.Linear(8, 8, rngs=nnx.Rngs(0))

    def __call__(self, query: Any, key: Any, value: Any) -> Any:
        weights = jnp.split(self.in_proj_weight[...], 3)
        biases = jnp.split(self.in_proj_bias[...], 3)
        q, k, v = (
            x @ w.T + b for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        return query + self.out_proj(jax.nn.softmax(q @ k.mT / 8**0.5, -1) @ v)


class FlaxApart(nnx.Module):
    def __init__(self, scale: float) -> None:
        self.pre, self.attn = nnx.Linear(8, 8, rngs=nnx.Rngs(0)), Stacked()
        self.scale = scale

    def __call__(self, x: Any) -> Any:
        x = jnp.tanh(self.pre(x))
        return self.attn(x, x, self.scale * x)


def thrice(seed: int, *, scale: float = 1.0) -> Pair:
    """JAX's layer is given the same array three times, and splits its weights itself."""
    return Pair(torch=Apart(), jax=FlaxApart(scale), inputs=(floats(seed, 2, 5, 8),))


def wide(seed: int) -> Pair:
    """q, k and v in one leaf `w` of the very shape of another one."""

    def port(p: Any, x: Any) -> Any:
        x = jnp.tanh(x @ p["pre"]["w"].T + p["pre"]["b"])
        q, k, v = jnp.split(x @ p["attn"]["w"].T + p["attn"]["b"], 3, -1)
        y = jax.nn.softmax(q @ k.mT / 8**0.5, -1) @ v
        return x + y @ p["attn"]["out"]["w"].T + p["attn"]["out"]["b"]

    shapes = {"pre": (8, 24), "attn": (24, 8), "out": (8, 8)}
    params: dict[str, Any] = {
        name: {"w": floats(i, *shape), "b": floats(i + 9, shape[0])}
        for i, (name, shape) in enumerate(shapes.items())
    }
    params["attn"]["out"] = params.pop("out")
    return Pair(torch=Apart(24), jax=(port, params), inputs=(floats(seed, 2, 5, 24),))


@pytest.mark.parametrize("build", [statistics, keyed, tied, stacked, attention, thrice, wide])
def test_right_ports_are_proved(build: Any) -> None:
    proof = prove(build(1))
    assert proof.same, proof


def test_a_layer_that_is_given_another_array_besides_is_a_difference() -> None:
    (difference,) = prove(thrice(1, scale=1 + 1e-7)).differences
    assert difference.kind == "between"
    assert difference.torch[1] == "attn.out_proj"


def test_a_stacked_leaf_that_no_layer_uses_is_left_alone() -> None:
    proof = prove(stacked(1, idle=True))
    assert not proof.differences
    assert len(proof.map) == 8 * 3


class Mixer(nn.Module):
    """Its layers are given a transposed array, for which PyTorch makes other operations."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(7, 4), nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.gelu(self.fc1(x.transpose(1, 2)))).transpose(1, 2)


class FlaxMixer(nnx.Module):
    def __init__(self) -> None:
        self.fc1, self.fc2 = (nnx.Linear(*s, rngs=nnx.Rngs(0)) for s in ((7, 4), (4, 7)))

    def __call__(self, x: Any) -> Any:
        return x + self.fc2(jax.nn.gelu(self.fc1(x.swapaxes(1, 2)))).swapaxes(1, 2)


def test_a_cause_behind_a_transposed_input_is_named() -> None:
    proof = prove(Pair(torch=Mixer(), jax=FlaxMixer(), inputs=(floats(1, 2, 7, 5),)))
    assert [d.cause for d in proof.differences] == ["gelu-tanh"]


class Rotated(nn.Module):
    """Keeps its rates in float32, which moves its gradients too."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.register_buffer("rates", 1 / 10000 ** (torch.arange(3).float() / 3))

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.arange(1, 1 + x.shape[1], dtype=x.dtype)[:, None] * self.get_buffer("rates")

        def turned(x: Tensor) -> Tensor:
            a, b = x.chunk(2, -1)
            both = a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()
            return torch.cat(both, -1)

        return self.head((turned(self.query(x)) @ turned(self.key(x)).mT).softmax(-1) @ x)


class FlaxRotated(nnx.Module):
    def __init__(self) -> None:
        self.query, self.key, self.head = (nnx.Linear(6, n, rngs=nnx.Rngs(0)) for n in (6, 6, 3))

    def __call__(self, x: Any) -> Any:
        rates = 1 / 10000 ** (jnp.arange(3, dtype=x.dtype) / 3)
        angles = jnp.arange(1, 1 + x.shape[1], dtype=x.dtype)[:, None] * rates
        cos, sin = jnp.cos(angles), jnp.sin(angles)

        def turned(x: Any) -> Any:
            a, b = jnp.split(x, 2, -1)
            return jnp.concatenate((a * cos - b * sin, b * cos + a * sin), -1)

        scores = turned(self.query(x)) @ turned(self.key(x)).mT
        return self.head(jax.nn.softmax(scores, -1) @ x)


def test_a_table_in_float32_is_no_difference_of_gradients() -> None:
    proof = prove(Pair(torch=Rotated(), jax=FlaxRotated(), inputs=(floats(1, 2, 9, 6),)))
    assert proof.same, proof
    assert any("keeps rates in float32" in note for note in proof.notes)
