"""Does a step repeat itself? The step that training uses, from one state, compared bit for bit."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from parity.contract.backend import Session
from parity.contract.state import PARAMETERS, State

Outcome = dict[str, np.ndarray]
"""What a step leaves behind, by stage, in the order of the computation: the loss before the update,
moments and parameters after it."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How two outcomes of the same step differ."""

    stage: str
    """The first stage that differs in a bit."""
    largest: float
    """Largest difference in it, as a fraction of its largest absolute value."""
    params: float
    """Largest difference of a parameter, as a fraction of the largest in its array."""

    def __str__(self) -> str:
        params = f"parameters by {self.params:.1e} of scale" if self.params else "no parameter"
        return f"first in {self.stage} (by {self.largest:.1e} of its scale), {params}"


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """How often a step gave which result."""

    runs: int
    distinct: int
    """Different results, bit for bit; 1 for a deterministic step."""
    difference: Difference | None
    """Of the run that parts earliest from the first, and by most; None if all are the same."""


def repeat(
    session: Session,
    state: State,
    images: Float[np.ndarray, "B 1 28 28"],
    labels: Int64[np.ndarray, "B"],
    *,
    runs: int,
    progress: Callable[[int], None],
) -> tuple[Outcome, Repetition]:
    """Make the same step `runs` times from `state`; return the first outcome, and how many differ.

    Args:
        session: a training, left after the last step.
        state: where each step starts.
        images: the batch.
        labels: likewise.
        runs: number of steps, at least 1.
        progress: told of each run.
    """
    seen: dict[str, Outcome] = {}
    for run in range(1, runs + 1):
        session.load(state)
        loss = session.step(images, labels)
        outcome = _outcome(loss, session.export())
        seen.setdefault(_digest(outcome), outcome)
        progress(run)
    first, *others = seen.values()
    differences = filter(None, (difference(first, other) for other in others))
    order = list(first)
    return first, Repetition(
        runs=runs,
        distinct=len(seen),
        difference=min(differences, key=lambda d: (order.index(d.stage), -d.largest), default=None),
    )


def difference(a: Outcome, b: Outcome) -> Difference | None:
    """Return how two outcomes differ; None where they are the same to the bit."""
    differs = [stage for stage in a if a[stage].tobytes() != b[stage].tobytes()]
    if not differs:
        return None
    params = [_of_scale(a[stage], b[stage]) for stage in a if stage.startswith("params.")]
    return Difference(
        stage=differs[0],
        largest=_of_scale(a[differs[0]], b[differs[0]]),
        params=float(np.max(params)),
    )


def _of_scale(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference over the largest value; NaN where one is not finite."""
    scale = max(np.abs(a).max(), np.abs(b).max())
    with np.errstate(invalid="ignore"):
        return float(np.abs(a - b).max() / scale) if scale else 0.0


def _outcome(loss: float, after: State) -> Outcome:
    groups = {"adam.m": after.adam_m, "adam.v": after.adam_v, "params": after.params}
    return {"loss": np.asarray(loss)} | {
        f"{group}.{name}": arrays[name] for group, arrays in groups.items() for name in PARAMETERS
    }


def _digest(outcome: Outcome) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in outcome.values())).hexdigest()
