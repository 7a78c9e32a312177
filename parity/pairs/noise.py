"""What rounding explains at each place: stochastic arithmetic around the forced run."""

from collections.abc import Callable
from typing import Any

import numpy as np

from parity.pairs.forward import Forced
from parity.pairs.locate import Case
from parity.pairs.rounding_jax import perturbed

UNIT = 2.0**-40
"""Of the errors that are made: far above float64's, and too small to change what is chosen."""
SAMPLES = 2
MARGIN = 64.0
"""An error is more than rounding beyond MARGIN times the largest σ of its array, for either side.

Of right code, two samples leave errors of up to 12 σ in 1,200 runs (`rounding.LAMBDA`); mistakes
lie 4 to 12 decades above, so that nothing hides below five times that.
"""


def noisy(rng: np.random.Generator, unit: float) -> Callable[..., list[Any]]:
    """Return what evaluates an equation with a random error of precision `unit`."""

    def around(equation: Any, given: list[Any], evaluate: Callable[..., list[Any]]) -> list[Any]:
        outputs = evaluate(*given)
        name = equation.primitive.name
        if name == "convert_element_type":  # a cast is another precision, not float64's rounding
            return outputs
        return perturbed(name, equation.params, given, outputs, unit=unit, rng=rng)

    return around


def set_rounding(case: Case) -> None:
    """Give each evidence the error that rounding explains in float64."""
    spread: dict[Any, float] = {}
    for sample in range(SAMPLES):
        rng = np.random.default_rng(sample)
        shaken = case.force(like=case.forced, around=noisy(rng, UNIT))
        for at, evidence in shaken.evidence.items():
            base = case.forced.evidence.get(at)
            if base is not None and np.shape(base.own) == np.shape(evidence.own):
                moved = np.abs(np.nan_to_num(evidence.own - base.own, posinf=0, neginf=0)) if (
                    base.own.dtype.kind == "f") else np.zeros(1)  # fmt: skip
                spread[at] = max(spread.get(at, 0.0), float(moved.max(initial=0)))
    _enter(case.forced, spread)


def _enter(forced: Forced, spread: dict[Any, float]) -> None:
    for at, evidence in forced.evidence.items():
        last_place = 4 * np.finfo(np.float64).eps * evidence.scale
        own = spread.get(at, 0.0) * np.finfo(np.float64).eps / 2 / UNIT
        evidence.rounding = MARGIN * own + last_place if evidence.own.dtype.kind == "f" else 0.0
