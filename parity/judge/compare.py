"""Comparison of two arrays: evidence, from which pass or fail is derived."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import nan
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np

from parity.contract.errors import DataError, DeviceError
from parity.truth.rounding import Expectation

T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and how much there is."""


class Sides(NamedTuple):
    """What is known of each of two subjects."""

    a: Any
    b: Any


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How near an array is to what it should be, at the element that is farthest off its bound."""

    stage: str
    elements: int = 0
    outside: int = 0
    """Elements outside their bound."""
    index: tuple[int, ...] = ()
    """Place of the worst element, in canonical layout."""
    got: float = nan
    expected: float = nan
    error: float = nan
    bound: float = nan
    scale: float = nan
    """Largest absolute value that the stage should have."""
    mismatch: str = ""
    """What is wrong with shape or dtype; the values are not compared then."""

    @property
    def agrees(self) -> bool:
        """Whether something was compared, and every element lies within its bound."""
        return self.elements > 0 and self.outside == 0 and not self.mismatch

    @property
    def ratio(self) -> float:
        """Error over bound of the worst element; 0 for no error, infinity for a meaningless one."""
        if self.mismatch:
            return np.inf
        if self.error == 0:
            return 0.0
        return self.error / self.bound if self.bound > 0 and np.isfinite(self.error) else np.inf

    @property
    def evidence(self) -> str:
        """What is wrong, or the worst element, for a sentence that has named the stage."""
        if self.mismatch:
            return self.mismatch
        element = f"element [{', '.join(map(str, self.index))}]" if self.index else "it"
        return f"{element} {self._worst()}"

    def _worst(self) -> str:
        return (
            f"is {self.got:.9g}, should be {self.expected:.9g}:"
            f" error {self.error:.3g}, bound {self.bound:.3g};"
            f" {self.outside:,} of {self.elements:,} elements outside"
        )

    def __str__(self) -> str:
        if self.mismatch:
            return f"{self.stage}: {self.mismatch}"
        return f"{self.stage}[{', '.join(map(str, self.index))}] {self._worst()}"


Judged = dict[str, Comparison]
"""By stage, in the order of the computation, as far as it could be judged."""


class EvidenceError(Exception):
    """A subject failed so that what follows cannot be judged; carries the evidence."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__(str(comparison))
        self.comparison = comparison


def first_wrong(judged: Judged) -> Comparison | None:
    """Return the first stage that disagrees; None if none does."""
    return next((comparison for comparison in judged.values() if not comparison.agrees), None)


def worst(comparisons: Iterable[Comparison]) -> Comparison:
    """Return the first of those that disagree, or else agree, with the largest ratio."""
    return max(comparisons, key=lambda comparison: (not comparison.agrees, comparison.ratio))


def merge(judged: Judged, *comparisons: Comparison) -> None:
    """Keep the worse comparison of each stage."""
    for new in comparisons:
        judged[new.stage] = worst((judged.get(new.stage, new), new))


def compare(stage: str, got: np.ndarray, expected: Expectation) -> Comparison:
    """Compare a stage with what it should be: shape, then every element.

    A value that is not finite is outside any bound.
    """
    value, bound = np.asarray(expected.value), np.asarray(expected.bound)
    if got.shape != value.shape:
        wrong = f"shape is {got.shape}, should be {value.shape}"
        return Comparison(stage=stage, mismatch=wrong)
    error = np.abs(got.astype(np.float64) - value)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0, error / bound)
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    index = np.unravel_index(ratio.argmax(), ratio.shape) if ratio.size else ()
    at_worst = [float(array[index]) if ratio.size else 0.0 for array in (got, value, error, bound)]
    return Comparison(
        stage=stage,
        elements=ratio.size,
        outside=int((~(error <= bound)).sum()),
        index=tuple(int(i) for i in index),
        got=at_worst[0],
        expected=at_worst[1],
        error=at_worst[2],
        bound=at_worst[3],
        scale=float(np.abs(value).max(initial=0)),
    )


def attempt(stage: str, call: Callable[[], T]) -> T:
    """Return what a subject's code returns; that it fails is the evidence against `stage`."""
    try:
        return call()
    except (DataError, DeviceError, EvidenceError):
        raise
    except Exception as error:  # noqa: BLE001 - a wrong port may raise anything: that is the evidence
        reason = " ".join(str(error).split())
        refuse(stage, f"is not delivered: {type(error).__name__}: {reason}")


def refuse(stage: str, mismatch: str) -> NoReturn:
    """Raise EvidenceError: a stage cannot be compared."""
    raise EvidenceError(Comparison(stage=stage, mismatch=mismatch))
