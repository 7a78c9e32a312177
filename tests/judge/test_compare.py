import numpy as np
import pytest

from parity.judge.compare import compare
from parity.truth.rounding import Expectation, exact

VALUE = np.array([[1.0, 2.0], [3.0, -4.0]])
BOUND = np.full((2, 2), 0.1)


def test_the_evidence_is_the_element_farthest_off_its_bound() -> None:
    got = VALUE + np.array([[0.05, 0.0], [-0.3, 0.2]])
    result = compare("stage", got, Expectation(VALUE, BOUND))
    assert (result.elements, result.outside, result.index) == (4, 2, (1, 0))
    assert (result.expected, result.bound, result.scale) == (3.0, 0.1, 4.0)
    assert result.error == pytest.approx(0.3)
    assert result.ratio == pytest.approx(3.0)
    assert not result.agrees
    assert "stage[1, 0] is 2.7, should be 3" in str(result)
    assert "2 of 4 elements" in str(result)


def test_an_error_as_large_as_its_bound_is_allowed() -> None:
    assert compare("stage", VALUE + 0.5, Expectation(VALUE, np.full((2, 2), 0.5))).agrees


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_never_agrees(bad: float) -> None:
    got = VALUE.copy()
    got[0, 1] = bad
    result = compare("stage", got, Expectation(VALUE, BOUND))
    assert (result.outside, result.index, result.ratio) == (1, (0, 1), np.inf)


def test_an_infinite_bound_or_expectation_excuses_nothing() -> None:
    assert not compare("s", VALUE, Expectation(VALUE, np.full((2, 2), np.nan))).agrees
    assert not compare("s", VALUE, Expectation(np.full((2, 2), np.nan), BOUND)).agrees


def test_comparing_nothing_is_no_agreement() -> None:
    assert not compare("stage", np.zeros((0, 3)), exact(np.zeros((0, 3)))).agrees


def test_shapes_are_compared_before_values() -> None:
    result = compare("stage", VALUE.T[:1], Expectation(VALUE, BOUND))
    assert not result.agrees
    assert str(result) == "stage: shape is (1, 2), should be (2, 2)"
