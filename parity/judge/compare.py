"""Comparison of two arrays: evidence, from which pass or fail is derived."""

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from parity.truth.rounding import Expectation

T = TypeVar("T")


class Sides(NamedTuple, Generic[T]):
    """What is known of each of two subjects."""

    a: T
    b: T


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How near an array is to what it should be, at the element that is farthest off its bound."""

    stage: str
    elements: int
    outside: int
    """Elements outside their bound."""
    index: tuple[int, ...]
    """Place of the worst element, in canonical layout."""
    got: float
    expected: float
    error: float
    bound: float
    scale: float
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

    def __str__(self) -> str:
        if self.mismatch:
            return f"{self.stage}: {self.mismatch}"
        place = ", ".join(map(str, self.index))
        return (
            f"{self.stage}[{place}] is {self.got:.9g}, should be {self.expected:.9g}:"
            f" error {self.error:.3g}, bound {self.bound:.3g};"
            f" {self.outside:,} of {self.elements:,} elements outside"
        )


def compare(stage: str, got: np.ndarray, expected: Expectation) -> Comparison:
    """Compare a stage with what it should be: shape, then every element.

    A value that is not finite is outside any bound.
    """
    value, bound = np.asarray(expected.value), np.asarray(expected.bound)
    if got.shape != value.shape:
        return misfit(stage, f"shape is {got.shape}, should be {value.shape}")
    error = np.abs(got.astype(np.float64) - value)
    outside = ~(error <= bound)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0, error / bound)
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    index = np.unravel_index(ratio.argmax(), ratio.shape) if ratio.size else ()
    worst = [float(array[index]) if ratio.size else 0.0 for array in (got, value, error, bound)]
    return Comparison(
        stage=stage,
        elements=ratio.size,
        outside=int(outside.sum()),
        index=tuple(int(i) for i in index),
        got=worst[0],
        expected=worst[1],
        error=worst[2],
        bound=worst[3],
        scale=float(np.abs(value).max(initial=0)),
    )


def misfit(stage: str, mismatch: str) -> Comparison:
    """Return the comparison of arrays that cannot be compared."""
    nan = float("nan")
    return Comparison(
        stage=stage,
        elements=0,
        outside=0,
        index=(),
        got=nan,
        expected=nan,
        error=nan,
        bound=nan,
        scale=nan,
        mismatch=mismatch,
    )
