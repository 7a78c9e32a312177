"""What a proof says that it would see, it sees."""

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.extend.core import ClosedJaxpr

from parity.pairs.case import prepare
from parity.pairs.jax_side.evaluator import Evaluator
from parity.pairs.jax_side.jaxprs import bind, tag_p, traced
from parity.pairs.jax_side.program import JaxSide, Program, wide
from parity.pairs.judging import prove
from parity.pairs.pair import Accept, Pair
from parity.pairs.planting.planted import Plant, planted
from parity.pairs.planting.sites import RULES
from parity.pairs.proof import Proof
from tests.pairs.miniatures import MINIATURES

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def rewritten(program: Program, plant: Plant, inputs: Sequence[np.ndarray]) -> Program:
    """Return a program with the mistake in it, its layers marked as they were."""

    def around(equation: Any, given: list[Any], _: Callable[..., list[Any]]) -> list[Any]:
        if equation is plant.equation:
            return plant.compute(*given)
        return bind(equation, given)

    def mark(tag: Any, value: Any) -> Any:
        return tag_p.bind(value, layer=tag.layer, way=tag.way, place=tag.place)

    def run(*args: Any) -> list[Any]:
        return Evaluator(mark, around)(program.jaxpr, *args)

    with jax.enable_x64(True):
        leaves = [jnp.zeros(v.aval.shape) for v in program.jaxpr.jaxpr.invars[: len(program.names)]]
        jaxpr, _ = traced(run, *leaves, *(jnp.asarray(wide(x)) for x in inputs))
    assert isinstance(jaxpr, ClosedJaxpr)
    return Program(jaxpr, program.names, program.outputs, program.buffers, program.structure)


def proof_with(pair: Pair, number: int, like: Proof) -> tuple[Plant, Proof]:
    """Prove a pair with one mistake really in its JAX program, under the same map."""
    found: list[Plant] = []
    own = JaxSide.trace

    def trace(self: JaxSide, values: Any, inputs: list[Any], **options: Any) -> Program:
        program = own(self, values, inputs, **options)
        if options:  # in float32, or for a training
            return program
        case = prepare_with(pair, program)
        found[:] = [planted(case)[number]]
        return rewritten(program, found[0], pair.inputs)

    with mock.patch.object(JaxSide, "trace", trace):
        proof = prove(pair, map=like.map)
    return found[0], proof


def prepare_with(pair: Pair, program: Program) -> Any:
    """Return a case of this very program, so that its plants are of its equations."""
    with mock.patch.object(JaxSide, "trace", return_value=program):
        return prepare(pair, 0, "drawn", (), lambda *_: None)


@pytest.mark.parametrize("name", ["mlp", "l-binary"])
def test_a_mistake_that_a_proof_says_it_sees_is_one_that_it_finds(name: str) -> None:
    pair = MINIATURES[name].build(0)
    right = prove(pair)
    claimed = right.coverage["planted"]
    assert right.same
    assert claimed["found"] == claimed["of"] > 0
    many = len(planted(prepare(pair, 0, "drawn", right.map, lambda *_: None)))
    assert many >= claimed["of"]
    for number in range(many):
        plant, wrong = proof_with(pair, number, right)
        assert wrong.same == (str(plant) in claimed["without effect"]), str(plant)


def test_what_the_inputs_never_reach_is_said() -> None:
    def clipped(x: jax.Array) -> jax.Array:
        return jnp.minimum(x, 6.0)

    def proof(inputs: np.ndarray) -> Proof:
        return prove(Pair(torch=lambda x: x.clamp(max=6.0), jax=clipped, inputs=(inputs,)))

    (unreached,) = proof(X).coverage["planted"]["without effect"]
    assert unreached.startswith("clip (tests/pairs/test_planted.py:")
    assert "without effect on these inputs: clip" in proof(X).summary["trust"]
    assert proof(10 * X).coverage["planted"] == {
        "found": 1, "of": 1, "not found": [], "without effect": [], "not planted": [],
    }  # fmt: skip


def test_what_would_be_no_difference_is_not_planted() -> None:
    def planted_into(**options: Any) -> list[str]:
        pair = Pair(torch=lambda x: x @ x.T, jax=lambda x: x @ x.T, inputs=(X,), **options)
        return [p.mistake for p in planted(prepare(pair, 0, "drawn", (), lambda *_: None))]

    assert "low-precision" in planted_into()
    assert "low-precision" not in planted_into(dtype="bfloat16")
    assert "transposed" not in planted_into(accept=[Accept("transposed")])


def test_empty_arrays_and_complex_numbers_end_no_proof() -> None:
    def port(x: jax.Array) -> jax.Array:
        padded = jnp.concatenate([x[:, :0].reshape(-1), x.reshape(-1)]).reshape(x.shape)
        return jnp.abs(padded * (1 + 1j))

    proof = prove(Pair(torch=lambda x: (x * (1 + 1j)).abs(), jax=port, inputs=(X,)))
    assert proof.same, proof.table()
    assert "complex numbers" in proof.summary["float32"]


def test_a_mistake_that_does_not_fit_an_equation_ends_no_proof(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = ("scale", lambda x, _: [x[:1]])
    fails = ("clip", lambda x, _: [x.reshape(7)])
    monkeypatch.setitem(RULES, "mul", [lambda _: iter([cut, fails])])
    proof = prove(Pair(torch=lambda x: x * 3, jax=lambda x: x * 3, inputs=(X,)))
    assert proof.same
    assert [text.split()[0] for text in proof.coverage["planted"]["not planted"]] == [
        "scale",
        "clip",
    ]


def test_a_mistake_in_a_loop_is_planted_in_every_turn() -> None:
    def port(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda c, row: (c * 0.5 + row, c), jnp.zeros(3), x)[0]

    def ours(x: torch.Tensor) -> torch.Tensor:
        carry = torch.zeros(3)
        for row in x:
            carry = carry * 0.5 + row
        return carry

    proof = prove(Pair(torch=ours, jax=port, inputs=(X,)))
    assert proof.coverage["planted"]["found"] == proof.coverage["planted"]["of"] == 2


def test_nothing_is_planted_into_what_is_different() -> None:
    proof = prove(Pair(torch=torch.sin, jax=lambda x: jnp.sin(2 * x), inputs=(X,)))
    assert proof.coverage["planted"] == {}
    assert "trust" not in proof.summary
