"""Statistics of timings, and the figures of a benchmark's tables, each with its row of text."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Row = tuple[str, ...]


@dataclass(frozen=True)
class Spread:
    """Quartiles of repeated timings, in seconds."""

    lower: float
    median: float
    upper: float

    @property
    def unstable(self) -> bool:
        """Whether the middle half of the timings is wider than a tenth of their median."""
        return (self.upper - self.lower) / self.median > 0.1


@dataclass(frozen=True)
class Ratio:
    """How many times as long one thing takes as another."""

    median: float
    low: float
    high: float
    """Ends of the interval that holds the true median with 95 % confidence."""

    @property
    def undecided(self) -> bool:
        """Whether both may take the same time, by the interval as it is printed."""
        return _printed(self.low) <= 1 <= _printed(self.high)

    @property
    def longer(self) -> bool:
        """Whether the one takes longer, by the interval as it is printed."""
        return _printed(self.low) > 1

    @property
    def factor(self) -> float:
        """The farther end of the interval from 1, as a factor above 1."""
        return max(self.high, 1 / self.low) if self.low > 0 else math.inf

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


def spread(seconds: Sequence[float]) -> Spread:
    """Return the quartiles of timings."""
    return Spread(*np.quantile(seconds, [0.25, 0.5, 0.75]).tolist())


def _printed(value: float) -> float:
    return float(f"{value:.3g}")


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


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast an arm is in a phase."""

    seconds: Spread
    speed: Ratio | None
    """How many times as fast as the first arm it is; None where that one does not count."""
    flops: float
    """FLOP/s of the network's own products."""
    of_product: float
    """That as a fraction of a matrix product's FLOP/s, by the arm that is fastest at it."""

    def cells(self) -> Row:
        """Return the row of `Benchmark.rows`, without the arm's name."""
        return (
            _time(self.seconds.median),
            f"{_time(self.seconds.lower)} to {_time(self.seconds.upper)}",
            str(self.speed or "-"),
            f"{self.flops / 1e9:.1f}",
            f"{self.of_product:.1%}",
            "unstable" * self.seconds.unstable,
        )


@dataclass(frozen=True, kw_only=True)
class Start:
    """What an arm needs besides its time."""

    first_step: float
    """Seconds."""
    compile_seconds: float | None
    """What of these is compiling; None for an arm that is not compiled."""
    pays_after: float | None
    """Steps after which compiling has paid, against the same backend and kernel op by op: what the
    first step takes longer, over what each later one saves. None where that is not known, or it
    never pays."""
    retraces: int
    """Programs compiled after the warm-up, in all rounds."""
    memory: int
    device_memory: int | None
    """The most bytes that were in use, by the process and on its device."""
    data_path: float | None
    """Part of an epoch that its steps on one batch at hand do not take."""

    def cells(self) -> Row:
        """Return the row of `Benchmark.costs`, without the arm's name."""
        device = self.device_memory
        return (
            _time(self.first_step),
            "-" if self.compile_seconds is None else _time(self.compile_seconds),
            "-" if self.pays_after is None else f"{self.pays_after:,.0f} steps",
            str(self.retraces),
            _memory(self.memory) + ("" if device is None else f", {_memory(device)} on the device"),
            "-" if self.data_path is None else f"{self.data_path:.1%}",
        )


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _memory(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
