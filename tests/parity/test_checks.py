"""The verdict: right code agrees, and a planted mistake is found at its stage."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F

import jaxcnn.sessions
import jaxcnn.state
import jaxcnn.steps
import parity
import torchcnn.data
import torchcnn.model
import torchcnn.sessions
import torchcnn.steps
from parity.contract.datasets import Split
from parity.contract.errors import NondeterminismError, RecipeError
from parity.contract.parameters import State
from parity.contract.recipe import DType, Recipe

pytestmark = pytest.mark.usefixtures("planting")

Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize(
    ("a", "b", "dtype", "batch_size"),
    [
        ("torch:eager", "jax:jit", "float32", 64),
        ("torch:eager", "jax:jit", "float64", 64),
        ("torch:jit", "jax:eager", "float32", 7),
        ("torch:jit", "jax:eager", "float64", 1),
        ("jax:jit", "jax:eager", "float32", 32),
        ("numpy", "torch:eager", "float32", 3),
    ],
)
def test_the_backends_agree(a: str, b: str, dtype: DType, batch_size: int) -> None:
    verdict = parity.check(
        a=a, b=b, dataset="digits", dtype=dtype, batch_size=batch_size, device="cpu"
    )
    assert verdict.agrees, str(verdict)
    assert str(verdict).startswith("agree: ")
    assert json.loads(json.dumps(verdict.to_json(), allow_nan=False))["agrees"] is True


def shift_labels(patch: pytest.MonkeyPatch) -> None:
    right = torchcnn.data.load_dataset

    def wrong(*args: Any) -> object:
        dataset = right(*args)
        train = Split(dataset.train.images, (dataset.train.labels + 1) % 10)
        return dataclasses.replace(dataset, train=train)

    patch.setattr(torchcnn, "load_dataset", wrong)


def flatten_in_native_order(patch: pytest.MonkeyPatch) -> None:
    row = jaxcnn.state.LAYOUT["fc1.weight"]
    wrong = row._replace(to_native=lambda w: w.T, to_canonical=lambda w: w.T)
    patch.setitem(jaxcnn.state.LAYOUT, "fc1.weight", wrong)


def do_not_invert_the_layout(patch: pytest.MonkeyPatch) -> None:
    row = jaxcnn.state.LAYOUT["conv1.weight"]
    wrong = row._replace(to_canonical=lambda w: w.transpose(3, 2, 1, 0))
    patch.setitem(jaxcnn.state.LAYOUT, "conv1.weight", wrong)


def leak_in_relu(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(F, "relu", lambda x: torch.where(x > 0, x, 1e-3 * x))


def pool_the_mean(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(F, "max_pool2d", F.avg_pool2d)


def sum_the_loss(patch: pytest.MonkeyPatch) -> None:
    def wrong(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels, reduction="sum")

    patch.setattr(torchcnn.steps, "cross_entropy", wrong)


def smooth_the_labels(patch: pytest.MonkeyPatch) -> None:
    def wrong(logits: jaxcnn.steps.Array, labels: jaxcnn.steps.Array) -> jaxcnn.steps.Array:
        targets = optax.smooth_labels(jaxcnn.steps.jax.nn.one_hot(labels, 10), 0.1)
        return optax.softmax_cross_entropy(logits, targets).mean()

    patch.setattr(jaxcnn.steps, "cross_entropy", wrong)


def round_to_float16(patch: pytest.MonkeyPatch) -> None:
    right = jaxcnn.state._to_native

    def wrong(arrays: dict[str, np.ndarray], *args: Any) -> object:
        return right({n: a.astype(np.float16).astype(a.dtype) for n, a in arrays.items()}, *args)

    patch.setattr(jaxcnn.state, "_to_native", wrong)


def trace_in_another_layout(patch: pytest.MonkeyPatch) -> None:
    right = jaxcnn.sessions._canonical

    def wrong(activations: Any) -> dict[str, np.ndarray]:
        return {**right(activations), "conv1": np.asarray(activations.conv1)}

    patch.setattr(jaxcnn.sessions, "_canonical", wrong)


def scaled(stage: str) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        right = torchcnn.sessions.Session.trace

        def wrong(*args: Any) -> dict[str, np.ndarray]:
            values = right(*args)
            return {**values, stage: (values[stage] * np.float32(1.001)).astype(np.float32)}

        patch.setattr(torchcnn.sessions.Session, "trace", wrong)

    return plant


FAULTS: dict[str, tuple[Plant, str, str]] = {
    "labels shifted": (shift_labels, "torch:eager", "data"),
    "layout not inverted": (do_not_invert_the_layout, "jax:jit", "init"),
    "state rounded": (round_to_float16, "jax:jit", "init"),
    "another layout": (trace_in_another_layout, "jax:jit", "conv1"),
    "flattened in native order": (flatten_in_native_order, "jax:jit", "logits"),
    "leaky ReLU": (leak_in_relu, "torch:eager", "relu"),
    "mean pooling": (pool_the_mean, "torch:eager", "pool"),
    "summed loss": (sum_the_loss, "torch:eager", "loss"),
    "smoothed labels": (smooth_the_labels, "jax:jit", "loss"),
    "fc1.bias's gradient scaled": (scaled("grad.fc1.bias"), "torch:eager", "grad.fc1.bias"),
    "conv1's gradient scaled": (scaled("grad.conv1.weight"), "torch:eager", "grad.conv1.weight"),
}


@pytest.mark.parametrize(("plant", "subject", "stage"), FAULTS.values(), ids=FAULTS)
def test_a_planted_mistake_is_found_at_its_stage(
    plant: Plant, subject: str, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    verdict = parity.check(dataset="digits", device="cpu")
    assert not verdict.agrees
    assert verdict.first_disagreement is not None
    found_subject, comparison = verdict.first_disagreement
    assert (found_subject, comparison.stage) == (subject, stage)
    assert f"{subject} is different from stage {stage}" in str(verdict)
    report = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert report["first_disagreement"] == {"subject": subject, "stage": stage}


def test_float32_under_the_name_of_float64_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torchcnn.sessions.import_state

    def wrong(state: State, recipe: Recipe) -> object:
        return right(state.astype("float32"), dataclasses.replace(recipe, dtype="float32"))

    monkeypatch.setattr(torchcnn.sessions, "import_state", wrong)
    monkeypatch.setattr(
        torchcnn.sessions,
        "to_device",
        lambda images, labels, recipe: (
            torch.from_numpy(images.astype(np.float32)),
            torch.from_numpy(labels),
        ),
    )
    verdict = parity.check(dataset="digits", dtype="float64", device="cpu")
    assert "stage init: came back as float32, was sent as float64" in str(verdict)


def test_a_subject_that_differs_from_itself_gets_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = itertools.count()
    right = torchcnn.sessions.Session.trace

    def wrong(*args: Any) -> dict[str, np.ndarray]:
        values = right(*args)
        if next(calls) == 1:
            values["logits"][0, 0] = np.nextafter(values["logits"][0, 0], np.float32(9))
        return values

    monkeypatch.setattr(torchcnn.sessions.Session, "trace", wrong)
    with pytest.raises(NondeterminismError, match=r"torch:eager.*from stage logits on") as caught:
        parity.check(dataset="digits", device="cpu")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("subject", ["torch", "torch:", "keras:jit", "torch:fast", "jax:jit:x", ""])
def test_an_unknown_subject_is_refused_and_the_known_ones_named(subject: str) -> None:
    with pytest.raises(RecipeError, match=r"torch:eager, torch:jit, jax:eager, jax:jit"):
        parity.check(a=subject, dataset="digits")
