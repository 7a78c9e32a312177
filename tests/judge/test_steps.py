"""One subject judged: its data, its numbers where ties are common, and what it raises."""

import dataclasses
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from parity.contract.backend import Trace
from parity.contract.data.datasets import Dataset, Split, digits
from parity.contract.errors import DataError, DeviceError, NondeterminismError
from parity.contract.recipe import Recipe
from parity.contract.state import initial_state
from parity.judge.compare import EvidenceError, attempt
from parity.judge.definitions import judge_data
from parity.judge.states import coarse_batch, coarse_state
from parity.judge.steps import difference, examine, repeat
from parity.subjects.oracle import OracleSession
from parity.subjects.subject import Subject
from parity.truth import reference, stages

TRUTH = digits()
RECIPE = Recipe(dataset="digits")


def one_label_off(data: Dataset) -> Dataset:
    labels = data.test.labels.copy()
    labels[17] = (labels[17] + 1) % 10
    return dataclasses.replace(data, test=Split(data.test.images, labels))


def one_pixel_off(data: Dataset) -> Dataset:
    images = data.train.images.copy()
    images[1300, 4, 5] ^= 1
    return dataclasses.replace(data, train=Split(images, data.train.labels))


def one_image_less(data: Dataset) -> Dataset:
    return data.first(1436)


def other_dtype(data: Dataset) -> Dataset:
    train = Split(data.train.images, data.train.labels)
    object.__setattr__(train, "labels", data.train.labels.astype(np.int32))  # Split makes it int64
    return dataclasses.replace(data, train=train)


def test_the_same_data_agree_and_every_value_counts() -> None:
    judged = judge_data(digits(), RECIPE)
    assert judged.agrees
    assert judged.elements == TRUTH.train.images.size


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("change", "evidence"),
    [
        (one_label_off, r"^data\[17\] is \d, should be \d.* 1 of 360 elements"),
        (one_pixel_off, r"^data\[1300, 4, 5\] is .*error 1, bound 0; 1 of 1,126,608 elements"),
        (one_image_less, r"is uint8 \(1436, 28, 28\), should be uint8 \(1437, 28, 28\)"),
        (other_dtype, r"is int32 \(1437,\), should be int64 \(1437,\)"),
    ],
)
def test_other_data_do_not(change: Callable[[Dataset], Dataset], evidence: str) -> None:
    judged = judge_data(change(digits()), RECIPE)
    assert not judged.agrees
    assert re.search(evidence, str(judged)), str(judged)


def test_coarse_numbers_are_exact_and_full_of_ties_and_zeros() -> None:
    state = coarse_state(0, "float32")
    images, labels = coarse_batch(0, 16, "float32")
    trace = stages.trace(state, images, labels, lr=1e-3)
    assert np.array_equal(trace["conv1"], np.round(4 * trace["conv1"]) / 4)
    assert (trace["conv1"] == 0).mean() > 0.02
    windows = reference.windows(trace["relu"])
    tops = (windows == windows.max(axis=-1, keepdims=True)).sum(axis=-1)
    assert ((tops > 1) & (windows.max(axis=-1) > 0)).mean() > 0.02
    assert np.abs(trace["logits"]).max() > np.log(np.finfo(np.float32).max)


def test_what_a_subject_raises_is_evidence_unless_it_cannot_run_here() -> None:
    def fail() -> None:
        raise ValueError("matrices\ndo not fit")

    with pytest.raises(EvidenceError, match="conv1: is not delivered: ValueError: matrices do not"):
        attempt("conv1", fail)
    for error in (DeviceError("no GPU"), DataError("no file")):

        def refuse(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            attempt("conv1", refuse)


def test_a_step_that_trains_and_does_not_repeat_itself_gets_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right, calls = OracleSession.steps, itertools.count()

    def wrong(*args: Any) -> np.ndarray:
        return right(*args) * (1 + 1e-15 * next(calls))

    monkeypatch.setattr(OracleSession, "steps", wrong)
    recipe = Recipe(dataset="digits", dtype="float64", batch_size=7)
    with pytest.raises(NondeterminismError, match=r"numpy.*first in stage step.loss"):
        examine(Subject.parse("numpy"), recipe, TRUTH.train, initial_state(0, "float64"))


def outcome(**changed: np.ndarray) -> Trace:
    values = {"loss": np.array(2.0), "adam.m.a": np.array([1.0, 4.0]), "params.a": np.ones(2)}
    return values | {name.replace("_", "."): value for name, value in changed.items()}


def restless(changes: list[float]) -> Callable[[], Trace]:
    """Return a computation one parameter of which changes from run to run."""
    left = iter(changes)
    return lambda: outcome(params_a=np.array([1.0, 1 + next(left)]))


@pytest.mark.parametrize(("changes", "distinct"), [([0] * 4, 1), ([0, 1, 0, 1], 2), ([0, 1, 2], 3)])
def test_distinct_results_are_counted(changes: list[float], distinct: int) -> None:
    heard: list[int] = []
    first, repetition = repeat(restless(changes), runs=len(changes), progress=heard.append)
    assert difference(first, outcome()) is None
    assert (repetition.runs, repetition.distinct) == (len(changes), distinct)
    assert heard == list(range(1, len(changes) + 1))
    assert (repetition.difference is None) == (distinct == 1)


def test_the_largest_difference_of_the_first_stage_that_differs_is_shown() -> None:
    _, repetition = repeat(restless([0, 1, 3, 0]), runs=4)
    assert repetition.difference is not None
    assert repetition.difference.stage == "params.a"
    assert repetition.difference.largest == 0.75


def test_the_same_bits_are_no_difference() -> None:
    assert difference(outcome(), outcome()) is None
    not_a_number = outcome(params_a=np.array([1, np.nan]))
    assert difference(not_a_number, not_a_number) is None


def test_the_first_stage_that_differs_is_named_and_measured_by_its_scale() -> None:
    found = difference(
        outcome(), outcome(adam_m_a=np.array([1.0, 5.0]), params_a=np.array([1, 0.5]))
    )
    assert found is not None
    assert (found.stage, found.largest, found.params) == ("adam.m.a", 0.2, 0.5)
    assert (
        str(found) == "first in adam.m.a (by 2.0e-01 of its scale), parameters by 5.0e-01 of scale"
    )


def test_a_sign_of_zero_is_a_bit() -> None:
    found = difference(outcome(loss=np.array(0.0)), outcome(loss=np.array(-0.0)))
    assert found is not None
    assert (found.stage, found.largest) == ("loss", 0)


def test_what_is_not_finite_has_no_size() -> None:
    found = difference(outcome(), outcome(loss=np.array(np.inf)))
    assert found is not None
    assert np.isnan(found.largest)
