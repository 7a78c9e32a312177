"""Does a computation repeat itself? Made several times from one state, compared bit for bit."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Outcome = dict[str, np.ndarray]
"""What a computation leaves behind, by stage, in the order of the computation."""


class Difference(NamedTuple):
    """How two outcomes of the same computation differ."""

    stage: str
    """The first stage that differs in a bit."""
    largest: float
    """Largest difference in it, as a fraction of its largest absolute value."""
    params: float
    """Largest difference of a parameter, as a fraction of the largest in its array."""

    def __str__(self) -> str:
        params = f"parameters by {self.params:.1e} of scale" if self.params else "no parameter"
        return f"first in {self.stage} (by {self.largest:.1e} of its scale), {params}"


class Repetition(NamedTuple):
    """How often a computation gave which result."""

    runs: int
    distinct: int
    """Different results, bit for bit; 1 for a deterministic computation."""
    difference: Difference | None
    """Of the run that differs earliest from the first, and by most; None if all are the same."""


def repeat(
    compute: Callable[[], Outcome], *, runs: int, progress: Callable[[int], object] = int
) -> tuple[Outcome, Repetition]:
    """Compute the same `runs` times; return the first outcome, and how many differ.

    `progress` is called after each run with its number.
    """
    seen: dict[bytes, Outcome] = {}
    for run in range(1, runs + 1):
        outcome = compute()
        seen.setdefault(b"".join(array.tobytes() for array in outcome.values()), outcome)
        progress(run)
    first, *others = seen.values()
    differences = filter(None, (difference(first, other) for other in others))
    order = list(first)
    earliest = min(differences, key=lambda d: (order.index(d.stage), -d.largest), default=None)
    return first, Repetition(runs, len(seen), earliest)


def difference(a: Outcome, b: Outcome) -> Difference | None:
    """Return how two outcomes differ; None where they are the same to the bit."""
    stage = next((stage for stage in a if a[stage].tobytes() != b[stage].tobytes()), None)
    if stage is None:
        return None
    params = [_of_scale(a[name], b[name]) for name in a if "params." in name]
    return Difference(stage, _of_scale(a[stage], b[stage]), float(np.max(params)))


def _of_scale(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference over the largest value; NaN where one is not finite."""
    scale = max(np.abs(a).max(), np.abs(b).max())
    with np.errstate(invalid="ignore"):
        return float(np.abs(a - b).max() / scale) if scale else 0.0
