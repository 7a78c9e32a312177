"""Whole trainings: right code is the same algorithm, and a mistake is found in its step."""

import json
from typing import Any

import numpy as np
import pytest
import torch

import jaxcnn.optim
import parity
import torchcnn.harness
import torchcnn.state
import torchcnn.steps
from parity.contract.data.datasets import digits, pixels
from parity.contract.errors import RecipeError
from parity.contract.files import to_json
from parity.contract.recipe import Recipe
from parity.truth import reference
from tests.conftest import COMPILES

pytestmark = pytest.mark.usefixtures("planting")

DIGITS = Recipe(dataset="digits", device="cpu", epochs=1, limit=200)


@COMPILES
def test_in_float64_two_trainings_stay_together() -> None:
    result = parity.train(
        a="torch:jit", b="jax:jit", recipe=Recipe(**{**vars(DIGITS), "dtype": "float64"})
    )
    assert str(result) == "same algorithm"
    assert (result.steps, result.float32, result.judged) == (4, None, 0)
    assert result.float64.steps == [1, 2, 3, 4]
    assert max(result.float64.apart) < 1e-12
    [(a, b)] = result.epoch_losses(result.float64)
    assert f"{a:.3f}" == f"{b:.3f}"
    ends = [state.params["fc1.weight"] for state in result.float64.states]
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=result.float64.apart[-1])
    assert [state.step for state in result.float64.states] == [4, 4]


def test_in_float32_every_step_is_judged_and_the_drift_is_measured_from_the_truth() -> None:
    heard = []
    result = parity.train(
        a="torch:eager",
        b="jax:eager",
        recipe=DIGITS,
        steps=6,
        progress=lambda what, step, steps: heard.append((what, step, steps)),
    )
    assert str(result) == "same algorithm; float32 drift is rounding"
    assert (result.steps, result.judged, result.batches_per_epoch) == (6, 6, 4)
    assert [len(losses) for losses in result.epoch_losses(result.float64)] == [2, 2]
    assert result.float32 is not None
    assert result.float32.from_truth is not None
    assert all(0 < series[-1] < 1e-3 for series in result.float32.from_truth)
    phases = ("float64, free running", "float32, free running", "float32, step by step")
    assert heard == [(what, step, 6) for what in phases for step in range(1, 7)]
    shown = json.loads(json.dumps(to_json(result), allow_nan=False))
    assert shown["float32"]["ratio"] == result.float32.ratio
    assert "states" not in shown["float32"]
    where = {"device": "cpu", "mode": "eager", "kernel": "layers"}
    assert shown["ran"]["b"] == shown["recipe"] | where


@pytest.mark.parametrize(("a", "b"), [("torch:eager", "jax:jit"), ("numpy", "torch:eager")])
def test_the_final_states_are_evaluated_each_by_its_own_subject(a: str, b: str) -> None:
    result = parity.train(a=a, b=b, recipe=Recipe(**{**vars(DIGITS), "dtype": "float64"}), steps=5)
    test = digits().test
    for subject, got, state in zip((a, b), result.tests, result.float64.states, strict=True):
        p = state.params
        maps = reference.relu(
            reference.conv1(pixels(test.images, "float64"), p["conv1.weight"], p["conv1.bias"])
        )
        flat = reference.flatten(reference.pool(maps))
        logits = reference.fc1(flat, p["fc1.weight"], p["fc1.bias"])
        right = (logits.argmax(axis=1) == test.labels).mean()
        assert got.loss == pytest.approx(reference.loss(logits, test.labels), rel=1e-12), subject
        assert (got.accuracy, got.examples) == (right, 360)
        key = "a" if subject == a else "b"
        shown = to_json(result)["tests"][key]
        assert shown["confusion"] == got.confusion.tolist()
        assert f"{shown['accuracy']:.2%}" in result.table()
        assert f"{shown['loss']:.4f}" in result.table()


def test_a_wrong_adam_constant_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxcnn.optim, "ADAM_B2", 0.99)
    result = parity.train(recipe=DIGITS, steps=2)
    assert not result.agrees
    assert result.failure is not None
    assert (result.failure.subject, result.failure.step) == ("jax:jit", 1)
    assert str(result).startswith("different from stage adam.v.conv1.weight on, first in step ")
    assert "step 1 of jax:jit" in str(result)


def test_a_mistake_that_shows_in_a_later_step_is_found_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gradient that is not cleared is added to the next one."""
    monkeypatch.setattr(torch.optim.Adam, "zero_grad", lambda self: None)
    right = torchcnn.steps.trace_step
    kept = {}

    def wrong(
        state: torchcnn.state.TrainState, images: torch.Tensor, labels: torch.Tensor
    ) -> object:
        state, values = right(state, images, labels)
        for name, gradient in values.gradients.items():
            gradient += kept.get(name, 0)
            kept[name] = gradient.clone()
        return state, values

    monkeypatch.setattr(torchcnn.harness, "trace_step", wrong)
    result = parity.train(recipe=DIGITS, steps=3)
    assert result.failure is not None
    assert (result.failure.subject, result.failure.step) == ("torch:eager", 2)
    assert result.failure.comparison.stage == "grad.fc1.weight"


def test_an_untraced_step_that_differs_from_the_traced_one_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The step that trains is not the one whose stages are judged: float64 tells them apart."""
    right = torchcnn.harness._Session.steps

    def wrong(session: Any, images: Any, labels: np.ndarray, order: np.ndarray) -> np.ndarray:
        return right(session, images, labels[::-1].copy(), order)

    monkeypatch.setattr(torchcnn.harness._Session, "steps", wrong)
    result = parity.train(recipe=DIGITS, steps=3)
    assert not result.agrees
    assert "parted by step 1" in str(result)


def test_steps_must_be_positive() -> None:
    with pytest.raises(RecipeError, match="steps must be at least 1"):
        parity.train(recipe=DIGITS, steps=0)


def test_a_loss_that_is_not_a_number_is_different_and_still_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = torchcnn.harness._Session.steps
    monkeypatch.setattr(
        torchcnn.harness._Session, "steps", lambda *args: right(*args) * float("nan")
    )
    result = parity.train(recipe=DIGITS, steps=2)
    assert not result.agrees
    assert "parted by step 1" in str(result)
    assert json.loads(json.dumps(to_json(result), allow_nan=False))["float64"]["losses"]["a"] == [
        None,
        None,
    ]
