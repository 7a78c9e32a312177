"""Bounds hold for every correct computation and for no wrong one."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.contract.backend import Trace
from parity.contract.recipe import DType
from parity.contract.state import State, initial_state
from parity.judge.compare import compare
from parity.truth import reference
from parity.truth.stages import STAGES, expectations

LR = 1e-3


def numpy_trace(state: State, images: np.ndarray, labels: np.ndarray) -> Trace:
    """Compute every stage in the state's own precision, from its own earlier stages."""
    p, dtype = state.params, state.dtype
    t: Trace = {"conv1": reference.conv1(images, p["conv1.weight"], p["conv1.bias"])}
    t["relu"] = reference.relu(t["conv1"])
    t["pool"] = reference.pool(t["relu"])
    t["flatten"] = reference.flatten(t["pool"])
    t["logits"] = reference.fc1(t["flatten"], p["fc1.weight"], p["fc1.bias"])
    t["loss"] = np.asarray(reference.loss(t["logits"], labels))
    g = t["grad.logits"] = reference.logits_gradient(t["logits"], labels).astype(dtype)
    t["grad.fc1.weight"], t["grad.fc1.bias"] = reference.fc1_gradients(g, t["flatten"])
    t["grad.conv1.weight"], t["grad.conv1.bias"] = reference.conv1_gradients(
        reference.pooled_gradient(g, p["fc1.weight"]), reference.passed(t["conv1"]), images
    )
    for name, parameter in p.items():
        m = reference.adam_m(state.adam_m[name], t[f"grad.{name}"])
        v = reference.adam_v(state.adam_v[name], t[f"grad.{name}"])
        update = reference.adam_update(m, v, step=state.step + 1, lr=LR)
        t[f"adam.m.{name}"], t[f"adam.v.{name}"] = m, v
        t[f"params.{name}"] = parameter + update
    return {stage: t[stage].astype(dtype) for stage in STAGES}


def case(seed: int, batch: int, dtype: DType) -> tuple[State, np.ndarray, np.ndarray]:
    stream = np.random.RandomState(seed)
    images = stream.uniform(size=(batch, 1, 28, 28)).astype(dtype)
    return initial_state(seed, dtype), images, stream.randint(0, 10, batch)


@functools.cache
def traced(dtype: DType) -> tuple[State, np.ndarray, np.ndarray, Trace]:
    """Return a case and what is right of it; change a copy."""
    state, images, labels = case(1, 64, dtype)
    return state, images, labels, numpy_trace(state, images, labels)


@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 64]), st.sampled_from(["float32", "float64"])
)
@settings(max_examples=25, deadline=None)
def test_a_correct_computation_is_within_every_bound(seed: int, batch: int, dtype: DType) -> None:
    state, images, labels = case(seed, batch, dtype)
    trace = numpy_trace(state, images, labels)
    expected = dict(expectations(trace, state, images, labels, lr=LR))
    outside = [s for s in STAGES if not compare(s, trace[s], expected[s]).agrees]
    assert outside == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stage", STAGES)
def test_one_element_that_is_wrong_is_found_at_its_stage(stage: str, dtype: DType) -> None:
    """Wrong by 2e-3 of the stage's scale in float32, 4e-12 in float64.

    conv1's gradient is a sum of 10,816 terms that mostly cancel, so that rounding can do more: an
    error of 3e-2 and 6e-11 is found there.
    """
    units = 2**18 if stage.startswith("grad.conv1") else 2**14
    state, images, labels, right = traced(dtype)
    wrong = right[stage].copy()
    where = wrong.size // 2
    wrong.flat[where] += units * np.finfo(dtype).eps * np.abs(wrong).max()
    trace = right | {stage: wrong}
    expected = dict(expectations(trace, state, images, labels, lr=LR))
    comparisons = [compare(name, trace[name], expected[name]) for name in STAGES]
    first = next(c for c in comparisons if not c.agrees)
    assert first.stage == stage
    assert first.outside == 1
    assert first.index == tuple(np.unravel_index(where, wrong.shape))


def test_exact_stages_allow_not_even_the_last_bit() -> None:
    state, images, labels = case(2, 3, "float32")
    for stage in ("relu", "pool", "flatten"):
        trace = numpy_trace(state, images, labels)
        place = int(trace[stage].argmax())
        trace[stage].flat[place] = np.nextafter(trace[stage].flat[place], np.float32(9))
        expected = dict(expectations(trace, state, images, labels, lr=LR))
        assert not compare(stage, trace[stage], expected[stage]).agrees


def test_products_that_are_flushed_to_zero_are_no_error() -> None:
    """XLA flushes subnormal results on a CPU; PyTorch and NumPy keep them."""
    state, images, labels = case(3, 2, "float32")
    trace = numpy_trace(state, images, labels)
    trace["grad.conv1.bias"][:] = np.float32(1e-20)  # its square is subnormal
    trace["adam.v.conv1.bias"][:] = 0
    expected = dict(expectations(trace, state, images, labels, lr=LR))["adam.v.conv1.bias"]
    assert compare("adam.v.conv1.bias", trace["adam.v.conv1.bias"], expected).agrees
