"""The step itself: the rules in which frameworks differ, and modes against each other."""

import numpy as np
import pytest

from parity import reference
from parity.contract.backend import STAGES, Backend
from parity.contract.parameters import State, initial_state
from parity.contract.recipe import DType, Mode, Recipe

LABELS = np.array([3], dtype=np.int64)


def with_params(state: State, **changes: np.ndarray) -> State:
    params = {**state.params, **{name.replace("_", ".", 1): a for name, a in changes.items()}}
    return State(params=params, adam_m=state.adam_m, adam_v=state.adam_v, step=state.step)


def trace(
    backend: Backend, state: State, images: np.ndarray, mode: Mode = "eager"
) -> dict[str, np.ndarray]:
    recipe = Recipe(mode=mode, dtype="float64", device="cpu")
    labels = np.arange(len(images), dtype=np.int64) % 10
    return backend.trace(recipe, state, images, labels)


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
def test_a_trace_has_every_stage_in_order_and_in_the_recipes_dtype(
    backend: Backend, mode: Mode, dtype: DType
) -> None:
    recipe = Recipe(mode=mode, dtype=dtype, device="cpu")
    images = np.random.RandomState(1).uniform(size=(3, 1, 28, 28)).astype(dtype)
    got = backend.trace(recipe, initial_state(0, dtype), images, np.arange(3))
    assert tuple(got) == STAGES
    assert {array.dtype for array in got.values()} == {np.dtype(dtype)}
    assert all(array.flags.c_contiguous for array in got.values())


@pytest.mark.parametrize("mode", ["eager", "jit"])
def test_a_training_step_is_adam_on_the_traced_gradients(backend: Backend, mode: Mode) -> None:
    """From Kingma & Ba's formulas, in float64: relative errors stay near 2^-53 times a few."""
    from importlib import import_module

    steps = import_module(f"{backend.__name__}.steps")
    device = import_module(f"{backend.__name__}.device")
    state = initial_state(0, "float64")
    images = np.random.RandomState(2).uniform(size=(5, 1, 28, 28))
    labels = np.arange(5)
    recipe = backend.resolve(Recipe(mode=mode, dtype="float64", device="cpu"))
    expected = State(
        params={**state.params}, adam_m={**state.adam_m}, adam_v={**state.adam_v}, step=3
    )
    with backend.computing(recipe):
        native = backend.import_state(state, recipe)
        step = steps.in_mode(steps.train_step, mode)
        for t in (1, 2, 3):
            before = backend.export_state(native)
            values = backend.trace(recipe, before, images, labels)
            for name in state.params:
                g = values[f"grad.{name}"]
                m = 0.9 * expected.adam_m[name] + 0.1 * g
                v = 0.999 * expected.adam_v[name] + 0.001 * g**2
                expected.adam_m[name], expected.adam_v[name] = m, v
                update = 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
                expected.params[name] = expected.params[name] - update
            native, loss = step(native, *device.to_device(images, labels, recipe))
            np.testing.assert_allclose(float(loss), values["loss"], rtol=1e-12)
        after = backend.export_state(native)
    assert after.step == 3
    for group in ("params", "adam_m", "adam_v"):
        for name, value in getattr(expected, group).items():
            np.testing.assert_allclose(getattr(after, group)[name], value, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("mode", ["eager", "jit"])
def test_an_evaluation_step_sums_losses_and_counts_right_answers(
    backend: Backend, mode: Mode
) -> None:
    from importlib import import_module

    steps = import_module(f"{backend.__name__}.steps")
    device = import_module(f"{backend.__name__}.device")
    recipe = backend.resolve(Recipe(mode=mode, dtype="float64", device="cpu"))
    state = initial_state(0, "float64")
    images = np.random.RandomState(3).uniform(size=(7, 1, 28, 28))
    p = state.params
    maps = reference.relu(reference.conv1(images, p["conv1.weight"], p["conv1.bias"]))
    flat = reference.flatten(reference.pool(maps))
    logits = reference.fc1(flat, p["fc1.weight"], p["fc1.bias"])
    labels = logits.argmax(axis=1)
    labels[:2] = (labels[:2] + 1) % 10
    with backend.computing(recipe):
        native = backend.import_state(state, recipe)
        metrics = steps.in_mode(steps.eval_step, mode)(
            native, *device.to_device(images, labels, recipe)
        )
        np.testing.assert_allclose(
            float(metrics.loss_sum), 7 * reference.loss(logits, labels), rtol=1e-12
        )
        assert int(metrics.correct) == 5
