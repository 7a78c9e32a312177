"""One computation again and again: how many results, and how they differ."""

from collections.abc import Callable

import numpy as np
import pytest

from parity.judge.repetition import Outcome, difference, repeat


def outcome(**changed: np.ndarray) -> Outcome:
    values = {"loss": np.array(2.0), "adam.m.a": np.array([1.0, 4.0]), "params.a": np.ones(2)}
    return values | {name.replace("_", "."): value for name, value in changed.items()}


def restless(changes: list[float]) -> Callable[[], Outcome]:
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
