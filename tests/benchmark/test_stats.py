import numpy as np
import pytest

from parity.benchmark.stats import ratio, spread


def test_quartiles_are_those_of_the_timings() -> None:
    found = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.lower, found.median, found.upper) == (2.0, 3.0, 4.0)


@pytest.mark.parametrize(("width", "unstable"), [(0.099, False), (0.101, True)])
def test_timings_are_unstable_where_the_middle_half_is_wider_than_a_tenth(
    width: float, unstable: bool
) -> None:
    assert spread([1 - width, 1 - width / 2, 1.0, 1 + width / 2, 1 + width]).unstable is unstable


def test_a_ratio_is_taken_round_by_round() -> None:
    """The machine becomes ten times slower on the way; what takes twice as long still does."""
    machine = np.linspace(1, 10, 9)
    found = ratio(tuple(2 * machine), tuple(machine))
    assert (found.median, found.low, found.high) == (2, 2, 2)
    assert not found.undecided


def test_the_interval_holds_the_true_ratio_nineteen_times_in_twenty() -> None:
    """Of 300 runs of 9 rounds with 5 % noise; the bootstrap of so few is a little too narrow."""
    stream = np.random.RandomState(0)
    runs = [ratio(*map(tuple, stream.normal(1, 0.05, (2, 9)))) for _ in range(300)]
    assert 0.88 <= np.mean([found.undecided for found in runs]) <= 0.99


def test_a_tenth_slower_is_seen_through_three_per_cent_of_noise() -> None:
    stream = np.random.RandomState(1)
    runs = [
        ratio(tuple(1.1 * stream.normal(1, 0.03, 9)), tuple(stream.normal(1, 0.03, 9)))
        for _ in range(100)
    ]
    assert np.mean([found.low > 1 for found in runs]) > 0.95
    assert np.mean([found.median for found in runs]) == pytest.approx(1.1, abs=0.01)
