"""One subject judged: its data, its numbers where ties are common, and what it raises."""

import dataclasses
import itertools
import re
from collections.abc import Callable

import numpy as np
import pytest

from parity.contract.data.datasets import Dataset, Split, digits
from parity.contract.errors import DataError, DeviceError, NondeterminismError
from parity.contract.recipe import Recipe
from parity.contract.state import initial_state
from parity.judge.compare import EvidenceError, attempt
from parity.judge.definitions import judge_data
from parity.judge.states import coarse_batch, coarse_state
from parity.judge.steps import examine
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
    train = Split(data.train.images, data.train.labels.astype(np.int32))
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
    right, calls = OracleSession.step, itertools.count()

    def wrong(session: OracleSession, images: np.ndarray, labels: np.ndarray) -> float:
        return right(session, images, labels) * (1 + 1e-15 * next(calls))

    monkeypatch.setattr(OracleSession, "step", wrong)
    recipe = Recipe(dataset="digits", dtype="float64", batch_size=7)
    with pytest.raises(NondeterminismError, match=r"numpy.*first in stage step.loss"):
        examine(Subject.parse("numpy"), recipe, TRUTH.train, initial_state(0, "float64"))
