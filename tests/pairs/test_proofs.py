"""What a proof says where a mistake would hide, or right code looks wrong."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

from parity.contract.errors import DeviceError
from parity.pairs.conversion.converted import convert_weights
from parity.pairs.judging import prove
from parity.pairs.pair import Pair
from parity.pairs.proof import Proof

SQUARE = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)


def test_a_transposed_output_of_the_same_shape_is_a_difference() -> None:
    assert not prove(Pair(torch=lambda x: x.exp(), jax=lambda x: jnp.exp(x).T, inputs=(SQUARE,)))
    assert prove(Pair(torch=lambda x: x.exp(), jax=jnp.exp, inputs=(SQUARE,)))


def test_both_sides_compute_on_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = set()

    def port(x: jax.Array) -> jax.Array:
        seen.add(jax.config.values["jax_default_device"])
        return jnp.exp(x)

    pair = Pair(torch=torch.exp, jax=port, inputs=(SQUARE,))
    assert prove(pair)
    assert seen == {jax.local_devices(backend="cpu")[0]}
    monkeypatch.setattr(jax, "local_devices", Mock(side_effect=RuntimeError("no such backend")))
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    said = r"does not have here \(no such backend; JAX_PLATFORMS=cuda\); unset JAX_PLATFORMS"
    with pytest.raises(DeviceError, match=said):
        prove(pair)
    with pytest.raises(DeviceError, match=said):
        convert_weights(pair, tmp_path / "weights.pt", tmp_path / "weights.safetensors")


def test_an_input_that_pytorch_takes_no_gradient_of_is_left_out() -> None:
    labels, weights = np.array([0, 1, 2]), np.array([0.5, 1.0, 2.0], np.float32)

    def port(x: jax.Array, y: jax.Array, w: jax.Array) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(x, y)
        return (losses * w[y]).sum() / w[y].sum()

    def ours(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(x, y, weight=w)

    proof = prove(Pair(torch=ours, jax=port, inputs=(SQUARE, labels, weights)))
    assert proof.same
    assert not proof.differences


class Masked(nn.Module):
    """Has a key, an infinity, and a table that is kept in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("rate", 1 / 10000 ** (torch.arange(3).float() / 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.ones(3, 3, dtype=torch.bool).triu(1)
        scores = self.dropout(self.fc(x)) * self.get_buffer("rate").cos()
        return scores.masked_fill(hidden, -torch.inf)


class FlaxMasked(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.fc = nnx.Linear(3, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        scores = self.dropout(self.fc(x)) * jnp.cos(1 / 10000 ** (jnp.arange(3) / 3))
        return jnp.where(jnp.tril(jnp.ones((3, 3), bool)), scores, -jnp.inf)


def test_a_key_an_infinity_and_a_table_in_float32_raise_no_alarm() -> None:
    proof = prove(Pair(torch=Masked(), jax=FlaxMasked(nnx.Rngs(0)), inputs=(SQUARE,)))
    assert proof.same, proof.table()
    assert any("keeps rate in float32" in note for note in proof.notes)


def test_the_users_model_is_left_as_it_was() -> None:
    net, port = nn.Linear(3, 3), nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    before, call = net.weight.detach().clone(), nnx.Linear.__call__
    prove(Pair(torch=net, jax=port, inputs=(SQUARE,)))
    assert torch.equal(net.weight, before)
    assert net.weight.dtype == torch.float32
    assert nnx.Linear.__call__ is call
    assert torch.get_default_dtype() == torch.float32


def _trained(ours: Callable[..., Any], theirs: Any) -> Proof:
    losses = (lambda y: (y**2).mean(), lambda y: (y**2).mean())
    net, port = nn.Linear(3, 3), nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    pair = Pair(torch=net, jax=port, inputs=(SQUARE,), loss=losses, optimizer=(ours, theirs))
    return prove(pair)


def test_an_optimizer_is_judged_by_what_it_adds_to_the_parameters() -> None:
    ours = partial(torch.optim.Adagrad, lr=1e-3, initial_accumulator_value=0.1, eps=1e-8)

    def theirs(epsilon: float) -> Any:
        scaled = optax.scale_by_rss(initial_accumulator_value=0.1, eps=0.0)
        return optax.chain(scaled, optax.scale(-1e-3 * (1 + epsilon)))

    exact = partial(torch.optim.Adagrad, lr=1e-3, initial_accumulator_value=0.1, eps=0.0)
    assert _trained(exact, theirs(0.0))
    assert not _trained(exact, theirs(1e-8))  # 1e-11 of the parameters
    assert not _trained(ours, theirs(0.0))


def test_an_update_that_differs_only_later_is_named_by_its_step() -> None:
    proof = _trained(partial(torch.optim.SGD, lr=0.1), optax.sgd(lambda n: 0.1 + 0.01 * (n == 2)))
    [difference] = proof.differences
    assert difference.explanation == "step 3: the update, from the same gradients"


def test_a_rate_that_optax_keeps_in_float32_is_a_note() -> None:
    def kept(rate: float) -> Any:
        return optax.inject_hyperparams(optax.sgd, hyperparam_dtype=jnp.float32)(rate)

    proof = _trained(partial(torch.optim.SGD, lr=0.1), kept(0.1))
    assert proof.same, proof.table()
    assert any("the JAX optimizer computes a part in float32" in note for note in proof.notes)
    assert not _trained(partial(torch.optim.SGD, lr=0.1), kept(0.1 * (1 + 1e-6)))
