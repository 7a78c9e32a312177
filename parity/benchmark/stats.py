"""Timings and their ratios: median, spread, and how sure a ratio is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNSTABLE = 0.10
"""Interquartile range over median above which timings say little."""

_RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What repeated timings of one thing come to, in seconds."""

    median: float
    lower: float
    """First quartile."""
    upper: float
    """Third quartile."""

    @property
    def unstable(self) -> bool:
        """Whether the middle half of the timings is wider than a tenth of their median."""
        return (self.upper - self.lower) / self.median > UNSTABLE


@dataclass(frozen=True, kw_only=True)
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


def spread(seconds: Sequence[float]) -> Spread:
    """Return median and quartiles of timings."""
    lower, median, upper = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
    return Spread(median=median, lower=lower, upper=upper)


def ratio(seconds: Sequence[float], others: Sequence[float]) -> Ratio:
    """Return the median over rounds of `seconds` / `others`, with a bootstrap interval.

    The two of a round are measured close to each other, so that what slows the machine for a while
    cancels. The interval is the percentile bootstrap's (Efron 1979), of 10,000 resamples.
    """
    ratios = np.divide(seconds, others)
    draws = np.random.RandomState(0).randint(len(ratios), size=(_RESAMPLES, len(ratios)))
    medians = np.median(ratios[draws], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975]).tolist()
    return Ratio(median=float(np.median(ratios)), low=low, high=high)
