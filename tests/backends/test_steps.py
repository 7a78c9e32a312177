"""The step itself: the rules in which frameworks differ, and modes against each other."""

import numpy as np
import pytest
import torch

from parity.contract.backend import Backend
from parity.contract.data.datasets import digits, pixels
from parity.contract.recipe import DType, Mode, Recipe
from parity.contract.state import State, initial_state
from parity.subjects.oracle import OracleSession
from parity.truth import reference
from parity.truth.stages import STAGES

LABELS = np.array([3], dtype=np.int64)


def with_params(state: State, **changes: np.ndarray) -> State:
    params = {**state.params, **{name.replace("_", ".", 1): a for name, a in changes.items()}}
    return State(params=params, adam_m=state.adam_m, adam_v=state.adam_v, step=state.step)


def trace(
    backend: Backend, state: State, images: np.ndarray, mode: Mode = "eager"
) -> dict[str, np.ndarray]:
    recipe = Recipe(mode=mode, dtype="float64", device="cpu")
    labels = np.arange(len(images), dtype=np.int64) % 10
    with backend.session(recipe, state) as session:
        return session.trace(images, labels)


@pytest.mark.parametrize("mode", ["eager", "jit"])
def test_of_equal_values_in_a_pooling_window_the_first_gets_the_gradient(
    backend: Backend, mode: Mode
) -> None:
    """Every output of a filter is its bias: all windows are ties, and the image tells them apart.

    With first-wins the gradient of weight[0,0] sums the pixels at even rows and columns only.
    """
    state = initial_state(0, "float64")
    state = with_params(state, conv1_weight=np.zeros((16, 1, 3, 3)), conv1_bias=np.ones(16))
    images = np.random.RandomState(0).uniform(size=(4, 1, 28, 28))
    got = trace(backend, state, images, mode)
    pooled = (got["grad.logits"] @ state.params["fc1.weight"]).reshape(4, 16, 13, 13)
    first = np.einsum("bohw,bhw->o", pooled, images[:, 0, 0:26:2, 0:26:2])
    np.testing.assert_allclose(got["grad.conv1.weight"][:, 0, 0, 0], first, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("mode", ["eager", "jit"])
def test_relu_passes_no_gradient_at_zero(backend: Backend, mode: Mode) -> None:
    state = with_params(
        initial_state(0, "float64"),
        conv1_weight=np.zeros((16, 1, 3, 3)),
        conv1_bias=np.zeros(16),
    )
    got = trace(backend, state, np.random.RandomState(0).uniform(size=(2, 1, 28, 28)), mode)
    assert not got["grad.conv1.weight"].any()
    assert not got["grad.conv1.bias"].any()


@pytest.mark.parametrize("mode", ["eager", "jit"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_trace_has_every_stage_in_the_recipes_dtype(
    backend: Backend, mode: Mode, dtype: DType
) -> None:
    recipe = Recipe(mode=mode, dtype=dtype, device="cpu")
    images = np.random.RandomState(1).uniform(size=(3, 1, 28, 28)).astype(dtype)
    with backend.session(recipe, initial_state(0, dtype)) as session:
        got = session.trace(images, np.arange(3))
    assert set(got) == set(STAGES)
    assert {array.dtype for array in got.values()} == {np.dtype(dtype)}
    assert all(array.flags.c_contiguous for array in got.values())


@pytest.mark.parametrize("mode", ["eager", "jit"])
def test_three_training_steps_are_the_oracles(backend: Backend, mode: Mode) -> None:
    """In float64 each step errs by little more than 2^-53, and three drift hardly further."""
    images = np.random.RandomState(2).uniform(size=(5, 1, 28, 28))
    labels = np.arange(5)
    state = initial_state(0, "float64")
    recipe = Recipe(mode=mode, dtype="float64", device="cpu")
    oracle = OracleSession(recipe, state)
    with backend.session(recipe, state) as session:
        for _ in range(3):
            loss = session.step(images, labels)
            assert loss == pytest.approx(oracle.step(images, labels), rel=1e-12)
        got, expected = session.export(), oracle.export()
    assert got.step == expected.step == 3
    for group in ("params", "adam_m", "adam_v"):
        for name, value in getattr(expected, group).items():
            np.testing.assert_allclose(getattr(got, group)[name], value, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("mode", ["eager", "jit"])
def test_the_traced_step_is_the_one_that_trains(backend: Backend, mode: Mode) -> None:
    stream = np.random.RandomState(4)
    images, labels = stream.uniform(size=(6, 1, 28, 28)), stream.randint(0, 10, 6)
    recipe = Recipe(mode=mode, dtype="float64", device="cpu")
    state = initial_state(0, "float64")
    with backend.session(recipe, state) as session:
        trained_loss = session.step(images, labels)
        trained = session.export()
        session.load(state)
        trace = session.trace(images, labels)
        traced = session.export()
    assert trained_loss == pytest.approx(float(trace["loss"]), rel=1e-13)
    for name, value in trained.params.items():
        np.testing.assert_allclose(traced.params[name], value, rtol=0, atol=1e-13)
        np.testing.assert_array_equal(trace[f"params.{name}"], traced.params[name])


def test_a_loaded_state_leaves_nothing_of_the_one_before(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even gradients, which a step that forgot to clear them would add up."""
    monkeypatch.setattr(torch.optim.Adam, "zero_grad", lambda self: None)
    recipe = Recipe(mode="eager", device="cpu")
    images = np.random.RandomState(0).uniform(size=(5, 1, 28, 28)).astype(np.float32)
    labels = np.arange(5)
    with backend.session(recipe, initial_state(1)) as session:
        expected = session.step(images, labels), session.export()
    with backend.session(recipe, initial_state(0)) as session:
        session.trace(images, labels)
        session.load(initial_state(1))
        got = session.step(images, labels), session.export()
    assert got[0] == expected[0]
    assert got[1].step == expected[1].step
    for group in ("params", "adam_m", "adam_v"):
        for name, array in getattr(got[1], group).items():
            np.testing.assert_array_equal(array, getattr(expected[1], group)[name])


@pytest.mark.parametrize("mode", ["eager", "jit"])
def test_an_evaluation_is_the_oracles(backend: Backend, mode: Mode) -> None:
    test = digits().test
    p = initial_state(5, "float64").params
    maps = reference.relu(
        reference.conv1(pixels(test.images, "float64"), p["conv1.weight"], p["conv1.bias"])
    )
    flat = reference.flatten(reference.pool(maps))
    logits = reference.fc1(flat, p["fc1.weight"], p["fc1.bias"])
    recipe = Recipe(dataset="digits", seed=5, mode=mode, dtype="float64", device="cpu")
    got = backend.evaluate(recipe)
    assert got.loss == pytest.approx(reference.loss(logits, test.labels), rel=1e-12)
    assert got.accuracy == (logits.argmax(axis=1) == test.labels).mean()
    assert got.examples == 360
    expected = np.zeros((10, 10), dtype=np.int64)
    for label, predicted in zip(test.labels, logits.argmax(axis=1), strict=True):
        expected[label, predicted] += 1
    np.testing.assert_array_equal(got.confusion, expected)
    assert got.confusion.dtype == np.int64
