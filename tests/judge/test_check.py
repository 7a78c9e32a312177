"""The verdict: right code agrees, and a planted mistake is found at its stage."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jaxcnn.harness
import parity
import torchcnn.harness
from parity.contract.data.datasets import digits, pixels
from parity.contract.errors import DataError, NondeterminismError, RecipeError
from parity.contract.files import to_json
from parity.contract.recipe import DType, Recipe
from parity.contract.state import initial_state
from parity.judge.compare import first_wrong
from parity.judge.steps import examine, first_order
from parity.subjects.subject import Subject
from parity.truth import stages
from parity.truth.stages import STAGES
from tests.conftest import COMPILES

pytestmark = pytest.mark.usefixtures("planting")


@pytest.mark.parametrize(
    ("a", "b", "dtype", "batch_size"),
    [
        ("torch:eager", "jax:jit", "float32", 64),
        ("torch:eager", "jax:jit", "float64", 8),
        ("numpy", "jax:eager", "float64", 8),
        pytest.param("torch:jit", "numpy", "float32", 8, marks=COMPILES),
    ],
)
def test_the_backends_agree(a: str, b: str, dtype: DType, batch_size: int) -> None:
    verdict = parity.check(
        a=a, b=b, dataset="digits", dtype=dtype, batch_size=batch_size, device="cpu"
    )
    assert verdict.agrees, str(verdict)
    assert str(verdict).startswith("agree: ")
    assert json.loads(json.dumps(to_json(verdict), allow_nan=False))["agrees"] is True


@pytest.mark.parametrize(
    "name", ["torch:eager", pytest.param("torch:jit", marks=COMPILES), "jax:eager", "jax:jit"]
)
def test_in_float64_every_stage_is_the_oracles(name: str) -> None:
    """The whole step, not stage by stage: nothing amplifies rounding by more than thousands."""
    recipe = Recipe(dataset="digits", device="cpu", dtype="float64")
    train = digits().train
    with Subject.parse(name).session(recipe, initial_state(0, "float64")) as session:
        for batch in first_order(recipe, len(train)):
            images, labels = pixels(train.images[batch], "float64"), train.labels[batch]
            right = stages.trace(session.export(), images, labels, lr=recipe.lr)
            for stage, got in session.trace(images, labels).items():
                error = np.abs(got - right[stage]).max() / np.abs(right[stage]).max()
                assert error <= 1e-12, stage


def test_the_first_stage_that_parts_is_named_and_whose_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trace in another layout than its mirror's: the stages before it are judged, none after."""
    right = jaxcnn.harness._canonical

    def wrong(values: Any) -> dict[str, np.ndarray]:
        return {**right(values), "pool": np.asarray(values.activations.pool)}

    monkeypatch.setattr(jaxcnn.harness, "_canonical", wrong)
    verdict = parity.check(dataset="digits", device="cpu")
    assert "jax:jit first differs at stage pool: is float32 (64, 13, 13, 16)" in str(verdict)
    shown = json.loads(json.dumps(to_json(verdict), allow_nan=False))
    assert shown["agrees"] is False
    assert shown["first_disagreement"] == {"subject": "jax:jit", "stage": "pool"}
    assert shown["stages"]["relu"]["b"]["ratio"] <= 1
    assert shown["stages"]["logits"]["b"] is None
    assert shown["stages"]["fit.state"]["a"]["ratio"] <= 1


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage.startswith("grad.")])
def test_a_gradient_that_is_a_thousandth_too_large_is_found(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = torchcnn.harness._Session.trace

    def wrong(*args: Any) -> dict[str, np.ndarray]:
        values = right(*args)
        return {**values, stage: (values[stage] * np.float32(1.001)).astype(np.float32)}

    monkeypatch.setattr(torchcnn.harness._Session, "trace", wrong)
    recipe = Recipe(dataset="digits", device="cpu")
    judged = examine(Subject.parse("torch:eager"), recipe, digits().train, initial_state(0))
    first = first_wrong(judged)
    assert first is not None
    assert str(first).startswith(f"{stage}[")


def test_it_starts_from_the_state_that_is_given() -> None:
    state = initial_state(3)
    verdict = parity.check(
        a="torch:eager", b="numpy", dataset="digits", device="cpu", batch_size=1, state=state
    )
    assert verdict.agrees
    plain = parity.check(a="numpy", b="numpy", dataset="digits", batch_size=1)
    assert verdict.inputs["initial state"] != plain.inputs["initial state"]
    assert verdict.inputs["batches"] == plain.inputs["batches"]
    expected = [verdict.stages["logits"][1], plain.stages["logits"][1]]
    assert expected[0] != expected[1]


def test_a_subject_that_differs_from_itself_gets_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = itertools.count()
    right = torchcnn.harness._Session.trace

    def wrong(*args: Any) -> dict[str, np.ndarray]:
        values = right(*args)
        if next(calls) == 1:
            values["logits"][0, 0] = np.nextafter(values["logits"][0, 0], np.float32(9))
        return values

    monkeypatch.setattr(torchcnn.harness._Session, "trace", wrong)
    with pytest.raises(NondeterminismError, match=r"torch:eager.*first in stage logits") as caught:
        parity.check(dataset="digits", device="cpu")
    assert caught.value.exit_code == 3


def test_what_is_not_there_is_downloaded_by_the_subjects_libraries(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def download(*_: object) -> None:
        raise DataError("the library was asked")

    monkeypatch.setattr(Subject, "load_dataset", download)
    with pytest.raises(DataError, match="the library was asked"):
        parity.check(dataset="mnist", data_dir=tmp_path, device="cpu")


UNKNOWN = ["torch", "torch:", "keras:jit", "torch:fast", "jax:jit:x", "numpy:layers", ""]


@pytest.mark.parametrize("subject", UNKNOWN)
def test_an_unknown_subject_is_refused_and_the_known_ones_named(subject: str) -> None:
    with pytest.raises(RecipeError, match=r"torch:eager, torch:eager:fused, .*, jax:jit:fused"):
        parity.check(a=subject, dataset="digits")
