"""How far a stage may lie from the oracle when it is judged on the subject's own inputs.

The oracle takes what the subject computed upstream as exact, and the bound allows what rounding can
do in that one stage. So the first stage outside its bound is the one that is wrong, and nothing is
propagated.
"""

import numpy as np
from jaxtyping import Float, Int64

from parity.contract.backend import Trace
from parity.contract.state import PARAMETERS, Arrays, State
from parity.truth import reference
from parity.truth.reference import STAGES
from parity.truth.rounding import Expectation, Rounding, exact

Array = np.ndarray


def expectations(
    trace: Trace,
    state: State,
    images: Float[np.ndarray, "B 1 28 28"],
    labels: Int64[np.ndarray, "B"],
    *,
    lr: float,
) -> dict[str, Expectation]:
    """Return what each stage of a subject's trace should be, given its own earlier stages.

    Args:
        trace: what the subject computed, each stage of its proper shape.
        state: the state that it started from, in the precision that it promises to compute in.
        images: its input.
        labels: likewise.
        lr: Adam's learning rate.
    """
    t = {name: np.asarray(value, dtype=np.float64) for name, value in trace.items()}
    p = {name: np.asarray(value, dtype=np.float64) for name, value in state.params.items()}
    x = np.asarray(images, dtype=np.float64)
    rounding = Rounding(state.dtype)
    return (
        _forward(t, p, x, rounding)
        | {
            "loss": rounding.of_loss(t["logits"], labels),
            "grad.logits": rounding.of_logits_gradient(t["logits"], labels),
        }
        | _gradients(t, p, x, rounding)
        | _adam(t, p, state, rounding, lr)
    )


def _forward(t: Trace, p: Arrays, x: Array, rounding: Rounding) -> dict[str, Expectation]:
    (conv1,) = rounding.of_sums(
        lambda *args: (reference.conv1(*args),), x, p["conv1.weight"], p["conv1.bias"]
    )
    (logits,) = rounding.of_sums(
        lambda *args: (reference.fc1(*args),), t["flatten"], p["fc1.weight"], p["fc1.bias"]
    )
    return {
        "conv1": conv1,
        "relu": exact(reference.relu(t["conv1"])),
        "pool": exact(reference.pool(t["relu"])),
        "flatten": exact(reference.flatten(t["pool"])),
        "logits": logits,
    }


def _gradients(t: Trace, p: Arrays, x: Array, rounding: Rounding) -> dict[str, Expectation]:
    gradient, passed = t["grad.logits"], reference.passed(t["conv1"])
    fc1 = rounding.of_sums(reference.fc1_gradients, gradient, t["flatten"])

    # two sums, one after the other: ten classes to a pooling window, then the windows of the batch
    def correlated(pooled: Array, images: Array) -> tuple[Array, Array]:
        return reference.conv1_gradients(pooled, passed, images)

    (pooled,) = rounding.of_sums(
        lambda *args: (reference.pooled_gradient(*args),), gradient, p["fc1.weight"]
    )
    inner = correlated(pooled.bound, np.abs(x))
    conv1 = [
        Expectation(sums.value, sums.bound + error)
        for sums, error in zip(rounding.of_sums(correlated, pooled.value, x), inner, strict=True)
    ]
    return {
        "grad.fc1.weight": fc1[0],
        "grad.fc1.bias": fc1[1],
        "grad.conv1.weight": conv1[0],
        "grad.conv1.bias": conv1[1],
    }


def _adam(
    t: Trace, p: Arrays, state: State, rounding: Rounding, lr: float
) -> dict[str, Expectation]:
    expected = {}
    for name in PARAMETERS:
        m, v = (group[name].astype(np.float64) for group in (state.adam_m, state.adam_v))
        moments = rounding.of_moments(m, v, t[f"grad.{name}"])
        expected[f"adam.m.{name}"], expected[f"adam.v.{name}"] = moments
        expected[f"params.{name}"] = rounding.of_update(
            p[name], t[f"adam.m.{name}"], t[f"adam.v.{name}"], step=state.step + 1, lr=lr
        )
    return {stage: expected[stage] for stage in STAGES if stage in expected}


def stage_shapes(batch: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each stage of a step on `batch` images."""
    shapes: dict[str, tuple[int, ...]] = {
        "conv1": (batch, 16, 26, 26),
        "relu": (batch, 16, 26, 26),
        "pool": (batch, 16, 13, 13),
        "flatten": (batch, 2704),
        "logits": (batch, 10),
        "loss": (),
        "grad.logits": (batch, 10),
    }
    for name, (shape, _) in PARAMETERS.items():
        shapes |= {f"{group}.{name}": shape for group in ("grad", "adam.m", "adam.v", "params")}
    return {stage: shapes[stage] for stage in STAGES}
