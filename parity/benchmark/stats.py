"""Statistics of timings: how far they spread, and how sure a ratio is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNSTABLE = 0.10
"""Interquartile range over median above which timings say little."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median and quartiles of repeated timings, in seconds."""

    median: float
    lower: float
    """First quartile."""
    upper: float
    """Third quartile."""
    unstable: bool
    """Whether the middle half of the timings is wider than a tenth of their median."""


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
    unstable = (upper - lower) / median > UNSTABLE
    return Spread(median=median, lower=lower, upper=upper, unstable=unstable)


def ratio(seconds: Sequence[float], others: Sequence[float]) -> Ratio:
    """Return the median over rounds of `seconds` / `others`, with a bootstrap interval.

    The two of a round are measured close to each other, so that what slows the machine for a while
    cancels. The interval is the percentile bootstrap's (Efron 1979), of 10,000 resamples.
    """
    from scipy.stats import bootstrap  # takes most of a second to import

    ratios = np.divide(seconds, others)
    low, high = bootstrap(
        (ratios,), np.median, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return Ratio(median=float(np.median(ratios)), low=float(low), high=float(high))
