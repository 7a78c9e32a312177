"""The step itself: the rules in which frameworks differ, and modes against each other."""

import importlib
from collections.abc import Iterator

import numpy as np
import pytest

from parity.contract.backend import Backend, Session
from parity.contract.data.datasets import digits, pixels
from parity.contract.recipe import DType, Mode, Recipe
from parity.contract.state import State, initial_state
from parity.subjects.oracle import OracleSession
from parity.truth import reference
from parity.truth.stages import STAGES
from tests.conftest import COMPILES, in_each_mode, step

BATCH = 6
"""Images in each step here: a graph is compiled for one size."""


def with_params(state: State, **changes: np.ndarray) -> State:
    params = {**state.params, **{name.replace("_", ".", 1): a for name, a in changes.items()}}
    return State(params=params, adam_m=state.adam_m, adam_v=state.adam_v, step=state.step)


def random_batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.RandomState(seed)
    return stream.uniform(size=(BATCH, 1, 28, 28)), stream.randint(0, 10, BATCH)


@pytest.fixture(scope="class")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """A training in float64 by a backend in a mode, which several tests give their states."""
    backend, mode = request.param
    recipe = Recipe(mode=mode, dtype="float64", device="cpu")
    state = initial_state(0, "float64")
    with importlib.import_module(backend).session(recipe, state) as opened:
        yield opened


@pytest.mark.parametrize(
    "session",
    [
        ("torchcnn", "eager"),
        pytest.param(("torchcnn", "jit"), marks=COMPILES),
        ("jaxcnn", "eager"),
        ("jaxcnn", "jit"),
    ],
    indirect=True,
    scope="class",
    ids="-".join,
)
class TestInFloat64:
    def test_of_equal_values_in_a_pooling_window_the_first_gets_the_gradient(
        self, session: Session
    ) -> None:
        """Every output of a filter is its bias: all windows are ties, and the image tells them.

        With first-wins the gradient of weight[0,0] sums the pixels at even rows and columns only.
        """
        state = initial_state(0, "float64")
        state = with_params(state, conv1_weight=np.zeros((16, 1, 3, 3)), conv1_bias=np.ones(16))
        images, labels = random_batch(0)
        session.load(state)
        got = session.trace(images, labels)
        pooled = (got["grad.logits"] @ state.params["fc1.weight"]).reshape(BATCH, 16, 13, 13)
        first = np.einsum("bohw,bhw->o", pooled, images[:, 0, 0:26:2, 0:26:2])
        gradient = got["grad.conv1.weight"][:, 0, 0, 0]
        np.testing.assert_allclose(gradient, first, rtol=1e-12, atol=1e-15)

    def test_relu_passes_no_gradient_at_zero(self, session: Session) -> None:
        zeros = {"conv1_weight": np.zeros((16, 1, 3, 3)), "conv1_bias": np.zeros(16)}
        session.load(with_params(initial_state(0, "float64"), **zeros))
        got = session.trace(*random_batch(0))
        assert not got["grad.conv1.weight"].any()
        assert not got["grad.conv1.bias"].any()

    def test_three_training_steps_are_the_oracles(self, session: Session) -> None:
        """In float64 each step errs by little more than 2^-53, and three drift hardly further."""
        images, labels = random_batch(2)
        state = initial_state(0, "float64")
        oracle = OracleSession(Recipe(), state)
        session.load(state)
        for _ in range(3):
            loss = step(session, images, labels)
            assert loss == pytest.approx(step(oracle, images, labels), rel=1e-12)
        got, expected = session.export(), oracle.export()
        assert got.step == expected.step == 3
        for name, value in expected.named().items():
            np.testing.assert_allclose(got.named()[name], value, rtol=1e-9, atol=1e-15)

    def test_the_traced_step_is_the_one_that_trains(self, session: Session) -> None:
        batch, state = random_batch(4), initial_state(0, "float64")
        session.load(state)
        trained_loss = step(session, *batch)
        trained = session.export()
        session.load(state)
        trace = session.trace(*batch)
        traced = session.export()
        assert trained_loss == pytest.approx(float(trace["loss"]), rel=1e-13)
        for name, value in trained.params.items():
            np.testing.assert_allclose(traced.params[name], value, rtol=0, atol=1e-13)
            np.testing.assert_array_equal(trace[f"params.{name}"], traced.params[name])


@in_each_mode
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_trace_has_every_stage_in_the_recipes_dtype(
    backend: Backend, mode: Mode, dtype: DType
) -> None:
    recipe = Recipe(mode=mode, dtype=dtype, device="cpu")
    images, labels = random_batch(1)
    with backend.session(recipe, initial_state(0, dtype)) as session:
        got = session.trace(images.astype(dtype), labels)
    assert set(got) == set(STAGES)
    assert {array.dtype for array in got.values()} == {np.dtype(dtype)}
    assert all(array.flags.c_contiguous for array in got.values())


def test_a_loaded_state_leaves_nothing_of_the_one_before(backend: Backend) -> None:
    """To the bit, moments and count of steps included."""
    recipe = Recipe(mode="eager", device="cpu")
    images, labels = random_batch(0)
    batch = images.astype(np.float32), labels
    with backend.session(recipe, initial_state(1)) as session:
        expected = step(session, *batch), session.export()
    with backend.session(recipe, initial_state(0)) as session:
        session.trace(*batch)
        session.load(initial_state(1))
        got = step(session, *batch), session.export()
    assert got[0] == expected[0]
    assert got[1].step == expected[1].step
    for name, array in expected[1].named().items():
        np.testing.assert_array_equal(got[1].named()[name], array)


@in_each_mode
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
