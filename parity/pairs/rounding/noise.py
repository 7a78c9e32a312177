"""What rounding explains at each place: stochastic arithmetic around the forced run."""

from collections.abc import Callable
from typing import Any

import numpy as np

from parity.pairs.case import Case
from parity.pairs.rounding.jaxpr import perturbed

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
    """Give each evidence that is off the error that rounding explains in float64."""
    off = {at: evidence for at, evidence in case.forced.evidence.items() if evidence.wrong}
    if not off:
        return
    spread = dict.fromkeys(off, 0.0)
    for sample in range(SAMPLES):
        rng = np.random.default_rng(sample)
        shaken = case.force(like=case.forced, around=noisy(rng, UNIT))
        for at, evidence in off.items():
            own = shaken.evidence[at].own if at in shaken.evidence else None
            if own is not None and evidence.is_float and own.shape == evidence.own.shape:
                with np.errstate(invalid="ignore"):
                    moved = np.nan_to_num(np.abs(own - evidence.own), posinf=0)
                spread[at] = max(spread[at], float(moved.max(initial=0)))
    for at, evidence in off.items():
        evidence.rounding += MARGIN * spread[at] * np.finfo(np.float64).eps / 2 / UNIT
