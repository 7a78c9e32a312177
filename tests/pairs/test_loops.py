"""Layers that JAX holds stacked for a `vmap` or a `scan`, and what loops leave open."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax import lax
from torch import Tensor, nn

from parity.pairs.jax_side.jaxprs import equations, scan_counts
from parity.pairs.judging import prove
from parity.pairs.pair import Pair
from parity.pairs.rounding.jaxpr import spread

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
SQUARE = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.fc(self.norm(x)))


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.head = nn.Sequential(Block(), Block(), Block()), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x))


class FlaxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, epsilon: float) -> None:
        self.norm = nnx.LayerNorm(4, epsilon=epsilon, rngs=rngs)
        self.fc = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + jnp.tanh(self.fc(self.norm(x)))


class Scanned(nnx.Module):
    def __init__(self, epsilon: float) -> None:
        make = nnx.vmap(lambda rngs: FlaxBlock(rngs, epsilon))
        self.blocks = make(nnx.Rngs(0).split(3))
        self.head = nnx.Linear(4, 2, rngs=nnx.Rngs(1))

    def __call__(self, x: jax.Array) -> jax.Array:
        run = nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.head(run(x, self.blocks))


def test_blocks_stacked_for_a_scan_are_a_sequence_of_them() -> None:
    proof = prove(Pair(torch=Blocks(), jax=Scanned(1e-5), inputs=(X,)))
    assert proof.same, proof.table()
    assert proof.coverage["planted"]["found"] == proof.coverage["planted"]["of"] > 5
    wrong = prove(Pair(torch=Blocks(), jax=Scanned(1e-3), inputs=(X,)))
    assert [one.cause for one in wrong.differences] == ["epsilon"]


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(4, 2) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.relu(head(x)) for head in self.heads])


class FlaxHeads(nnx.Module):
    def __init__(self, act: Any) -> None:
        make = nnx.vmap(lambda rngs: nnx.Linear(4, 2, rngs=rngs))
        self.heads, self.act = make(nnx.Rngs(0).split(3)), act

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.act(nnx.vmap(lambda head, x: head(x), in_axes=(0, None))(self.heads, x))


@pytest.mark.parametrize("batch", [2, 5])
def test_layers_under_a_vmap_are_those_of_a_list(batch: int) -> None:
    """With two images what all heads return has the sizes of an array of features, too."""
    inputs = (X[:batch],)
    assert prove(Pair(torch=Heads(), jax=FlaxHeads(jax.nn.relu), inputs=inputs))
    wrong = prove(Pair(torch=Heads(), jax=FlaxHeads(jax.nn.silu), inputs=inputs))
    assert [one.cause for one in wrong.differences] == ["activation"]


def test_which_way_round_a_functions_square_matrix_lies_is_settled_by_the_outcome() -> None:
    def ours(params: dict[str, Tensor], x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(x @ params["w"])
        return x

    def port(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ params["w"]), x)

    sides = (ours, {"w": torch.from_numpy(SQUARE)}), (port, {"w": SQUARE})
    assert prove(Pair(torch=sides[0], jax=sides[1], inputs=(X,)))


def test_a_loop_that_ends_by_itself_has_no_gradient_to_be_judged() -> None:
    def port(x: jax.Array) -> jax.Array:
        return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 2), (0, x))[1]

    proof = prove(Pair(torch=lambda x: x * 8, jax=port, inputs=(X,)))
    assert proof.same
    assert "lax.while_loop" in proof.summary["gradients"]
    assert not prove(Pair(torch=lambda x: x * 4, jax=port, inputs=(X,)))


def test_what_a_scan_hands_on_is_told_by_its_axes() -> None:
    keys = jax.random.split(jax.random.key(0), 3)

    def program(x: jax.Array, rows: jax.Array, length: int) -> Any:
        def turn(carry: Any, row: Any) -> Any:
            total, key = carry
            return (total + x.sum() * row[0].sum(), row[1]), (key, total)

        first = (jnp.zeros(()), keys[0])
        lasts = lax.scan(turn, first, (rows[:length], keys[:length]), reverse=True)
        return lasts, lax.scan(lambda _, row: (None, row * 2), None, rows), lax.map(jnp.sin, rows)

    for length in (3, 0):
        found = [
            scan_counts(equation)
            for equation in equations(jax.make_jaxpr(program, static_argnums=2)(X, SQUARE, length))
            if equation.primitive.name == "scan"
        ]
        assert found == [(1, 2), (0, 0), (0, 0)]


def test_horners_rule_errs_as_its_products_and_sums_do() -> None:
    """(x − 1)³ near 1, where few digits are left.

    The error of rounding v is uniform within u·2^e, 2^e ≤ |v| < 2^(e+1), so that its rms is u·|v|
    over √3 to 2√3, where σ has u·|v|.
    """
    x = (1 + np.random.default_rng(0).uniform(-0.02, 0.02, 2000)).astype(np.float32)
    coefficients = [np.float32(c) for c in (-1, 3, -3, 1)]

    def horner(x: np.ndarray) -> np.ndarray:
        value = np.full(x.shape, coefficients[-1], x.dtype)
        for coefficient in coefficients[-2::-1]:
            value = value * x + x.dtype.type(coefficient)
        return value

    exact = horner(x.astype(np.float64))
    with jax.enable_x64(True):
        inputs = [jnp.asarray(value, float) for value in (x, *coefficients)]
        unit = float(np.finfo(np.float32).eps) / 2
        (sigma,) = spread("polynomial", {}, inputs, [jnp.asarray(exact)], unit=unit)
    assert sigma is not None
    rms = np.sqrt(np.mean(np.square((horner(x) - exact) / sigma)))
    assert 1 / (2 * np.sqrt(3)) < rms < 1 / np.sqrt(3)
