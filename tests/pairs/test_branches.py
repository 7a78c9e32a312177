"""Ports whose layers lie in branches, loops and dictionaries."""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import linen, nnx
from torch import Tensor, nn

from parity.pairs.judging import prove
from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import floats


class Actor(nn.Module):
    """Two branches of the same shapes, of which the port calls the other one first."""

    def __init__(self) -> None:
        super().__init__()
        self.critic, self.actor = (
            nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, n))
            for n in (1, 3)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(x), self.critic(x)


class LinenActor(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        found = []
        for width in (1, 3):
            h = linen.tanh(linen.Dense(7)(x))
            found.append(linen.Dense(width)(linen.tanh(linen.Dense(7)(h))))
        return found[1], found[0]


def crossed() -> Pair:
    x, port = floats(0, 4, 5), LinenActor()
    return Pair(torch=Actor(), jax=(port, port.init(jax.random.key(0), x)), inputs=(x,))


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv1d(3, 4, 3, bias=False), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


def normalised() -> Pair:
    """A convolution and its normalisation in one dictionary, under the names of the formula."""

    def port(p: Any, x: Any) -> Any:
        y = jax.lax.conv_general_dilated(x, p["w"], (1,), "VALID")
        mean, var, gamma, beta = (p[name][:, None] for name in ("mean", "var", "gamma", "beta"))
        return jax.nn.relu((y - mean) / jnp.sqrt(var + 1e-5) * gamma + beta)

    params = {"w": floats(1, 4, 3, 3), "mean": np.zeros(4, np.float32)}
    params |= {"var": np.ones(4, np.float32), "gamma": np.ones(4, np.float32)}
    params |= {"beta": np.zeros(4, np.float32)}
    return Pair(torch=Normalised(), jax=(port, params), inputs=(floats(2, 2, 3, 8),))


class Stepped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[:, 0])
        states = [state := torch.sigmoid(self.cell(state)) + x[:, t] for t in range(x.shape[1])]
        return torch.stack(states, 1)


def scanned() -> Pair:
    """A layer within `lax.scan`, of a side without layers."""

    def port(p: Any, x: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            state = jax.nn.sigmoid(state @ p["w"] + p["b"]) + x
            return state, state

        return jax.lax.scan(step, jnp.zeros_like(x[:, 0]), x.swapaxes(0, 1))[1].swapaxes(0, 1)

    params = {"w": floats(1, 4, 4), "b": floats(2, 4)}
    return Pair(torch=Stepped(), jax=(port, params), inputs=(floats(3, 2, 3, 4),))


class Queries(nn.Module):
    """Its first attention is of zeros, so that queries and keys have no gradient but rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.queries = nn.MultiheadAttention(8, 2, batch_first=True), nn.Embedding(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        q = self.queries.weight.expand(len(x), 3, 8)
        return self.attn(q, q, torch.zeros_like(q))[0] + x


class FlaxQueries(nnx.Module):
    def __init__(self) -> None:
        self.queries = nnx.Param(jnp.zeros((3, 8)))
        self.attn = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0))

    def __call__(self, x: Any) -> Any:
        q = jnp.broadcast_to(self.queries[...], (len(x), 3, 8))
        return self.attn(q, q, jnp.zeros_like(q)) + x


def queries() -> Pair:
    return Pair(torch=Queries(), jax=FlaxQueries(), inputs=(floats(0, 2, 3, 8),))


class Frozen(nn.Module):
    """A network whose copy gives the targets, and is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.online = nn.Linear(4, 2)
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            target = self.target(x).exp()
        return self.online(x), target


def frozen(stop: Any = jax.lax.stop_gradient) -> Pair:
    def port(p: Any, x: Any) -> Any:
        first, second = (x @ p[name]["w"] + p[name]["b"] for name in ("online", "target"))
        return first, stop(jnp.exp(second))

    params = {n: {"w": floats(1, 4, 2), "b": floats(2, 2)} for n in ("online", "target")}
    return Pair(torch=Frozen(), jax=(port, params), inputs=(floats(3, 5, 4),))


def compiled() -> Pair:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    net[1].compile(backend="eager")
    port = nnx.Sequential(*(nnx.Linear(a, b, rngs=nnx.Rngs(0)) for a, b in ((4, 3), (3, 2))))
    return Pair(torch=net, jax=port, inputs=(floats(0, 5, 4),))


class Headed(nn.Module):
    """A weight whose heads the port keeps in one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.fc = nn.Parameter(torch.randn(2, 3, 4)), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.einsum("bi,hdi->bhd", x, self.weight).flatten(1))


def merged() -> Pair:
    def port(p: Any, x: Any) -> Any:
        return (x @ p["weight"].T) @ p["fc"]["w"] + p["fc"]["b"]

    params = {"weight": floats(0, 6, 4), "fc": {"w": floats(1, 6, 2), "b": floats(2, 2)}}
    return Pair(torch=Headed(), jax=(port, params), inputs=(floats(3, 5, 4),))


@pytest.mark.parametrize(
    "build",
    [crossed, normalised, scanned, queries, frozen, compiled, merged],
    ids=lambda f: f.__name__,
)
def test_right_ones_are_proved(build: Any) -> None:
    proof = prove(build())
    assert proof.same, proof


def test_each_leaf_of_a_normalisation_is_mapped_to_that_of_its_role() -> None:
    found = {row.torch: row.jax for row in prove(normalised()).map}
    roles = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}
    assert found == {"conv.weight": "w", **{f"bn.{ours}": jax for ours, jax in roles.items()}}


def test_no_grad_that_the_port_lacks_is_named_with_its_line() -> None:
    (difference,) = prove(frozen(stop=lambda x: x)).differences
    assert difference.cause == "stop-gradient"
    assert "test_branches.py" in difference.explanation


def test_the_lines_of_a_region_are_those_that_its_value_is_made_by() -> None:
    """What JAX computes in between for another layer is not shown."""

    def port(p: Any, x: Any) -> Any:
        first = jnp.tanh(x @ p["a"])
        unrelated = jnp.cosh(x)
        return jnp.sin(first) @ p["b"], unrelated

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.b(F.hardtanh(self.a(x).tan()).sin()), x.cosh()

    pair = Pair(
        torch=Two(),
        jax=(port, {"a": floats(0, 4, 3), "b": floats(1, 3, 2)}),
        inputs=(floats(2, 5, 4),),
    )
    (difference,) = prove(pair).differences
    assert "tanh" in difference.jax_source
    assert "cosh" not in difference.jax_source


class Gated(nn.Module):
    """Two layers alike, whose outputs are used otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.linear_a_g, self.linear_b_g = nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.linear_a_g(x) * torch.sigmoid(self.linear_b_g(x)))


def gated(first: str, second: str) -> Pair:
    def port(p: Any, x: Any) -> Any:
        a, b = (x @ p[name]["w"] + p[name]["b"] for name in ("linear_a_g", "linear_b_g"))
        made = {"linear_a_g": a, "linear_b_g": b}
        return made[first] * jax.nn.sigmoid(made[second]) @ p["head"]["w"] + p["head"]["b"]

    widths = {"linear_a_g": 4, "linear_b_g": 4, "head": 2}
    params = {
        n: {"w": floats(i, 4, w), "b": floats(9, w)} for i, (n, w) in enumerate(widths.items())
    }
    return Pair(torch=Gated(), jax=(port, params), inputs=(floats(3, 5, 4),))


def test_layers_of_the_same_names_are_not_exchanged() -> None:
    assert prove(gated("linear_a_g", "linear_b_g")).same
    assert not prove(gated("linear_b_g", "linear_a_g"))


class Heads(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        mean = linen.Dense(2)(x)
        return linen.Dense(2)(x), mean


def test_outputs_in_another_order_are_a_difference() -> None:
    class Ours(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.spread = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.mean(x), self.spread(x)

    x, port = floats(0, 5, 4), Heads()
    pair = Pair(torch=Ours(), jax=(port, port.init(jax.random.key(0), x)), inputs=(x,))
    assert not prove(pair)


def test_branches_told_apart_by_the_outcome_are_said() -> None:
    assert any("by the outcome" in note for note in prove(crossed()).notes)


def test_a_scale_that_a_port_forgets_is_no_normalisations() -> None:
    class NormBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.gamma = nn.Linear(4, 4), nn.Parameter(torch.full((4,), 0.3))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.gamma * self.fc(x)

    def port(p: Any, x: Any) -> Any:
        return x + x @ p["fc"]["w"] + p["fc"]["b"]

    params = {"fc": {"w": floats(0, 4, 4), "b": floats(1, 4)}}
    assert not prove(Pair(torch=NormBlock(), jax=(port, params), inputs=(floats(2, 5, 4),)))
