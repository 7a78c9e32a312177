"""Statistics of timings: how far they spread, and how sure a ratio is."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNSTABLE = 0.10
"""Interquartile range over median above which timings say little."""


@dataclass(frozen=True)
class Spread:
    """Quartiles of repeated timings, in seconds."""

    lower: float
    median: float
    upper: float

    @property
    def unstable(self) -> bool:
        """Whether the middle half of the timings is wider than a tenth of their median."""
        return (self.upper - self.lower) / self.median > UNSTABLE


@dataclass(frozen=True)
class Ratio:
    """How many times as long one thing takes as another."""

    median: float
    low: float
    high: float
    """Ends of the interval that holds the true median with 95 % confidence."""

    @property
    def undecided(self) -> bool:
        """Whether both may take the same time."""
        return self.low <= 1 <= self.high

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


def spread(seconds: Sequence[float]) -> Spread:
    """Return the quartiles of timings."""
    return Spread(*np.quantile(seconds, [0.25, 0.5, 0.75]).tolist())


@functools.cache
def ratio(seconds: tuple[float, ...], others: tuple[float, ...]) -> Ratio:
    """Return the median over rounds of `seconds` / `others`, with a bootstrap interval.

    The two of a round are measured close to each other, so that what slows the machine for a while
    cancels. The interval is the percentile bootstrap's (Efron 1979), of 10,000 resamples.
    """
    from scipy.stats import bootstrap  # takes most of a second to import

    ratios, rng = np.divide(seconds, others), np.random.default_rng(0)
    resampled = bootstrap((ratios,), np.median, n_resamples=10_000, method="percentile", rng=rng)
    return Ratio(float(np.median(ratios)), *map(float, resampled.confidence_interval))
