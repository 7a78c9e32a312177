"""Ports of more kinds, each of which once raised a false alarm, was refused, or ended the proof."""

import math
from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from parity.pairs.judging import prove
from parity.pairs.pair import Pair, PairError
from parity.pairs.proof import MapRow
from tests.pairs.miniatures.registry import floats, tokens


class Embedded(nnx.Module):
    """Its table is in float32, whatever the rest is in."""

    def __init__(self) -> None:
        self.table = nnx.Embed(9, 6, rngs=nnx.Rngs(0))
        self.fc = nnx.Linear(6, 4, rngs=nnx.Rngs(1))

    def __call__(self, ids: Any) -> Any:
        return self.fc(self.table(ids))


def embedded(seed: int) -> Pair:
    labels = np.arange(15).reshape(3, 5) % 4
    return Pair(
        torch=nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 4)),
        jax=Embedded(),
        inputs=(tokens(seed, 9, 3, 5),),
        loss=(
            lambda y, t: F.cross_entropy(y.flatten(0, 1), t.flatten()),
            lambda y, t: optax.softmax_cross_entropy_with_integer_labels(y, t).mean(),
        ),
        targets=(labels,),
        optimizer=(lambda p: torch.optim.Adam(p, lr=1e-3), optax.adam(1e-3)),
    )


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = (nn.Linear(6, 6, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(6, 3, bias=False)
        self.experts = nn.ModuleList([Expert() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gate(x).softmax(-1)
        outs = torch.stack([expert(x) for expert in self.experts], -1)
        return (outs * gates[:, None]).sum(-1)


def experts(seed: int) -> Pair:
    """Three square leaves of each expert, stacked by name."""

    def port(p: Any, x: Any) -> Any:
        gates = jax.nn.softmax(x @ p["gate"], -1)
        hidden = jax.nn.silu(jnp.einsum("bi,eih->beh", x, p["w1"]))
        hidden = hidden * jnp.einsum("bi,eih->beh", x, p["w3"])
        return jnp.einsum("be,beh,eho->bo", gates, hidden, p["w2"])

    params = {name: floats(i, 3, 6, 6) for i, name in enumerate(("w1", "w2", "w3"))}
    params["gate"] = floats(5, 6, 3)
    return Pair(torch=Experts(), jax=(port, params), inputs=(floats(seed, 4, 6),))


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(5, 24), nn.LayerNorm(24)
        self.conv = nn.Conv2d(4, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.norm(self.fc(x))).view(-1, 4, 2, 3))


class FlaxGenerator(nnx.Module):
    """Makes of numbers an image with the channels last."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.fc, self.norm = (
            nnx.Linear(5, 24, rngs=rngs),
            nnx.LayerNorm(24, epsilon=1e-5, rngs=rngs),
        )
        self.conv = nnx.Conv(4, 3, (2, 2), padding="VALID", rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.norm(self.fc(x))).reshape(-1, 2, 3, 4)
        return self.conv(x).transpose(0, 3, 1, 2)


def generator(seed: int) -> Pair:
    return Pair(torch=Generator(), jax=FlaxGenerator(), inputs=(floats(seed, 3, 5),))


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pre, self.attn = nn.Linear(8, 8), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        x = self.pre(x)
        return self.attn(x, x, x, key_padding_mask=hidden)[0]


class FlaxMasked(nnx.Module):
    """Its mask says what is seen; PyTorch's what is not."""

    def __init__(self, *, inverted: bool) -> None:
        rngs = nnx.Rngs(0)
        self.pre, self.inverted = nnx.Linear(8, 8, rngs=rngs), inverted
        self.attn = nnx.MultiHeadAttention(2, 8, rngs=rngs, decode=False)

    def __call__(self, x: Any, hidden: Any) -> Any:
        mask = hidden[:, None, None, :]
        return self.attn(self.pre(x), mask=~mask if self.inverted else mask)


def masked(seed: int, *, inverted: bool = True) -> Pair:
    hidden = np.arange(5) >= np.array([[3], [4]])
    inputs = (floats(seed, 2, 5, 8), hidden)
    return Pair(torch=Masked(), jax=FlaxMasked(inverted=inverted), inputs=inputs)


class Spectral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.weight = nn.Linear(8, 8), nn.Parameter(torch.randn(2, 5))
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        for _ in range(6):
            x = torch.fft.irfft(torch.fft.rfft(x) * torch.complex(*self.weight), n=8)
        return self.out(x)


class FlaxSpectral(nnx.Module):
    """Complex numbers over more operations than gradients are taken of at a time."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.fc, self.out = nnx.Linear(8, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
        self.weight = nnx.Param(jnp.ones((2, 5)))

    def __call__(self, x: Any) -> Any:
        x = self.fc(x)
        for _ in range(6):
            x = jnp.fft.irfft(jnp.fft.rfft(x) * jax.lax.complex(*self.weight[...]), n=8)
        return self.out(x)


def spectral(seed: int) -> Pair:
    return Pair(torch=Spectral(), jax=FlaxSpectral(), inputs=(floats(seed, 3, 8),))


class Timed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, t: Tensor) -> Tensor:
        rates = torch.exp(-math.log(10000) * torch.arange(4, dtype=torch.float32) / 4)
        angles = t[:, None].float() * rates
        return self.fc(torch.cat([angles.cos(), angles.sin()], -1))


class FlaxTimed(nnx.Module):
    """A time in float32, as PyTorch's: log(10000) is another number there."""

    def __init__(self) -> None:
        self.fc = nnx.Linear(8, 4, rngs=nnx.Rngs(0))

    def __call__(self, t: Any) -> Any:
        rates = jnp.exp(-math.log(10000) * jnp.arange(4, dtype=jnp.float32) / 4)
        angles = t[:, None].astype(jnp.float32) * rates
        return self.fc(jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1))


def timed(seed: int) -> Pair:
    times = np.random.default_rng(seed).integers(0, 1000, 5)
    return Pair(torch=Timed(), jax=FlaxTimed(), inputs=(times,))


def focal(seed: int) -> Pair:
    """Losses whose gradients part where no training takes any: at the labels."""

    def ours(logits: Tensor, labels: Tensor) -> Tensor:
        p = logits.sigmoid()
        right = p * labels + (1 - p) * (1 - labels)
        each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return ((1 - right) ** 2 * each).mean()

    return Pair(
        torch=nn.Linear(4, 1),
        jax=nnx.Linear(4, 1, rngs=nnx.Rngs(0)),
        inputs=(floats(seed, 6, 4),),
        loss=(ours, lambda y, t: optax.sigmoid_focal_loss(y, t).mean()),
        targets=(np.array([[0], [1], [1], [0], [1], [0]], np.float32),),
    )


RIGHT = [embedded, experts, generator, masked, spectral, timed, focal]


@pytest.mark.parametrize("build", RIGHT)
def test_right_ones_are_proved(build: Any) -> None:
    proof = prove(build(1))
    assert proof.same, proof


def test_a_mask_that_is_not_inverted_is_a_difference() -> None:
    proof = prove(masked(1, inverted=False))
    assert {difference.where for difference in proof.differences} == {"inside attn"}


def test_stacks_are_made_of_the_leaves_of_one_name() -> None:
    stacked: dict[str, set[str]] = {}
    for row in prove(experts(1)).map:
        stacked.setdefault(row.jax, set()).add(row.torch.split(".")[-2])
    assert stacked == {"w1": {"w1"}, "w2": {"w2"}, "w3": {"w3"}, "gate": {"gate"}}


def test_an_image_made_in_another_order_permutes_the_layer_and_its_normalisation() -> None:
    patterns = {row.torch: row.pattern for row in prove(generator(1)).map}
    permuted = "(x y z) -> (y z x)"
    assert [patterns[name] for name in ("fc.bias", "norm.weight", "norm.bias")] == [permuted] * 3
    image = np.arange(24)
    moved = einops.rearrange(image, permuted, x=4, y=2)
    np.testing.assert_array_equal(moved, image.reshape(4, 2, 3).transpose(1, 2, 0).ravel())


def test_the_users_rows_stay_as_they_are() -> None:
    row = MapRow(torch="fc.weight", jax="fc.kernel", pattern="o i -> i o")
    proof = prove(generator(1), map=[row])
    assert not proof
    assert proof.map[0] == row


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.scale = nn.Linear(4, 3), nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.fc(x)


def test_an_optimizers_difference_is_named_also_where_a_parameter_is_one_number() -> None:
    def port(p: Any, x: Any) -> Any:
        return p["scale"] * (x @ p["fc"]["w"] + p["fc"]["b"])

    params = {"fc": {"w": floats(0, 4, 3), "b": floats(1, 3)}, "scale": np.array(2, np.float32)}
    pair = Pair(
        torch=Scaled(),
        jax=(port, params),
        inputs=(floats(2, 8, 4),),
        loss=(lambda y: (y**2).mean(), lambda y: (y**2).mean()),
        optimizer=(
            lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=0.1),
            optax.adamw(1e-3, weight_decay=0.1),
        ),
    )
    assert [difference.cause for difference in prove(pair).differences] == ["coupled-decay"]


def test_a_complex_parameter_is_refused_by_name() -> None:
    model = nn.Module()
    model.scale = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    pair = Pair(torch=model, jax=lambda x: x, inputs=(floats(0, 3),))
    with pytest.raises(PairError, match="scale is a complex parameter; hold its two parts"):
        prove(pair)
