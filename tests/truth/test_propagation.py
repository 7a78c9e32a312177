"""Bounds of a step without stages: they hold whatever rounding does, and say something."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.contract.recipe import DType
from parity.contract.state import PARAMETERS, State, initial_state
from parity.judge.compare import compare
from parity.judge.states import coarse_batch, coarse_state
from parity.truth import reference, stages
from parity.truth.propagation import STEP_STAGES, end_to_end
from parity.truth.stages import expectations
from tests.truth.test_stages import LR, case, numpy_trace, traced


def returned(trace: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {stage: trace[stage.removeprefix("step.")] for stage in STEP_STAGES}


def outside(state: State, trace: dict[str, np.ndarray], *batch: np.ndarray) -> list[str]:
    expected = end_to_end(stages.after(trace, state.step + 1), state, *batch, lr=LR)
    got = returned(trace)
    return [
        stage for stage in STEP_STAGES if not compare(stage, got[stage], expected[stage]).agrees
    ]


@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 64]), st.sampled_from(["float32", "float64"])
)
@settings(max_examples=20, deadline=None)
def test_a_correct_step_is_within_every_bound(seed: int, batch: int, dtype: DType) -> None:
    state, images, labels = case(seed, batch, dtype)
    assert outside(state, numpy_trace(state, images, labels), images, labels) == []


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_errors_of_the_convolution_that_change_what_pooling_passes_are_covered(
    seed: int, coarse: bool
) -> None:
    """Every output off by its whole bound, up or down at random: ties and zeros fall either way."""
    state, images, labels = case(seed, 8, "float32")
    if coarse:
        state, (images, labels) = coarse_state(seed, "float32"), coarse_batch(seed, 8, "float32")
    right = stages.trace(state, images, labels, lr=LR)
    bound = dict(expectations(right, state, images, labels, lr=LR))["conv1"].bound
    signs = np.random.RandomState(seed).choice([-1, 1], size=bound.shape)
    conv1 = right["conv1"] + signs * bound
    p = {name: array.astype(np.float64) for name, array in state.params.items()}
    flatten = reference.flatten(reference.pool(reference.relu(conv1)))
    logits = reference.fc1(flatten, p["fc1.weight"], p["fc1.bias"])
    g = reference.logits_gradient(logits, labels)
    pooled = reference.pooled_gradient(g, p["fc1.weight"])
    passed = reference.passed(conv1)
    fc1_weight, fc1_bias = reference.fc1_gradients(g, flatten)
    conv1_weight, conv1_bias = reference.conv1_gradients(pooled, passed, images.astype(np.float64))
    gradients = {
        "conv1.weight": conv1_weight,
        "conv1.bias": conv1_bias,
        "fc1.weight": fc1_weight,
        "fc1.bias": fc1_bias,
    }
    trace = {**right, "loss": np.asarray(reference.loss(logits, labels))}
    for name, gradient in gradients.items():
        m = reference.adam_m(state.adam_m[name], gradient)
        v = reference.adam_v(state.adam_v[name], gradient)
        update = reference.adam_update(m, v, step=state.step + 1, lr=LR)
        trace[f"adam.m.{name}"], trace[f"adam.v.{name}"] = m, v
        trace[f"params.{name}"] = p[name] + update
    assert (passed != reference.passed(right["conv1"])).any() or not coarse
    assert outside(state, trace, images, labels) == []


@pytest.mark.parametrize("stage", STEP_STAGES)
def test_an_array_that_is_wrong_by_a_tenth_is_found(stage: str) -> None:
    state, images, labels, right = traced("float32")
    name = stage.removeprefix("step.")
    trace = right | {name: np.asarray(np.float32(1.1) * right[name])}
    assert stage in outside(state, trace, images, labels)


def test_bounds_shrink_with_the_unit_roundoff() -> None:
    """Both bounds are proportional to it to first order: 2^29 apart, near-ties aside."""
    bounds = []
    for dtype in ("float32", "float64"):
        state, images, labels = case(2, 7, dtype)
        end = stages.after(stages.trace(state, images, labels, lr=LR), 1)
        expected = end_to_end(end, state, images, labels, lr=LR)
        bounds.append(float(expected["step.loss"].bound))
    assert bounds[0] / bounds[1] == pytest.approx(2**28, rel=0.1)  # the oracle rounds too


def test_the_parameters_are_judged_on_the_steps_own_moments() -> None:
    state = initial_state(0)
    _, images, labels = case(0, 7, "float32")
    trace = numpy_trace(state, images, labels)
    for name in PARAMETERS:
        trace[f"params.{name}"] = state.params[name]  # no update at all
    wrong = outside(state, trace, images, labels)
    assert wrong == [f"step.params.{name}" for name in PARAMETERS]
