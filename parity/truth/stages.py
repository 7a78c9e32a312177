"""The network as a table of stages, from which the oracle's trace and every bound follow.

A stage is judged on the subject's own inputs: the oracle takes what the subject computed upstream
as exact, and the bound allows what rounding can do in that one stage. So the first stage outside
its bound is the one that is wrong, and nothing is propagated.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from parity.contract.backend import Trace
from parity.contract.state import PARAMETERS, State
from parity.truth import reference
from parity.truth.rounding import Expectation, Rounding, exact

Array = np.ndarray
Formula = Callable[..., tuple[Array, ...]]
Judge = Callable[..., Sequence[Expectation]]
"""From a precision's rounding, a formula and its inputs: what its results should be."""


class Stage(NamedTuple):
    """A formula of the network, and what rounding may do to it."""

    names: tuple[str, ...]
    """Its results, in order; one, or a weight's and a bias's gradient together."""
    formula: Callable[..., Array | tuple[Array, ...] | float]
    inputs: tuple[str, ...]
    """Earlier stages; images and labels; a parameter by its name and its moments by m.NAME and
    v.NAME, all before the update; step, counted from 1; lr."""
    judge: Judge

    def compute(self, *inputs: Any) -> tuple[Array, ...]:
        """Return the results, a float64 array each."""
        results = self.formula(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        return tuple(np.asarray(result) for result in results)


def _exact(_: Rounding, formula: Formula, *inputs: Array) -> list[Expectation]:
    """Allow no error: what is selected or moved is not rounded."""
    return [exact(value) for value in formula(*inputs)]


def _own(analysis: Callable[..., Expectation]) -> Judge:
    """Judge by an error analysis that is made for the one formula."""
    return lambda rounding, _, *inputs: [analysis(rounding, *inputs)]


def _conv1_gradients(gradient: Array, weight: Array, conv1: Array, images: Array) -> tuple:
    pooled = reference.pooled_gradient(gradient, weight)
    return reference.conv1_gradients(pooled, reference.passed(conv1), images)


def _two_sums(
    rounding: Rounding, _: Formula, gradient: Array, weight: Array, conv1: Array, images: Array
) -> list[Expectation]:
    """Judge two sums, one after the other: ten classes to a window, then the batch's windows."""
    passed = reference.passed(conv1)

    def correlated(pooled: Array, images: Array) -> tuple[Array, Array]:
        return reference.conv1_gradients(pooled, passed, images)

    (pooled,) = rounding.of_sums(lambda g, w: (reference.pooled_gradient(g, w),), gradient, weight)
    inner = correlated(pooled.bound, np.abs(images))
    outer = rounding.of_sums(correlated, pooled.value, images)
    return [Expectation(o.value, o.bound + i) for o, i in zip(outer, inner, strict=True)]


def _updated(p: Array, m: Array, v: Array, step: int, lr: float) -> Array:
    return p + reference.adam_update(m, v, step=step, lr=lr)


_SUMS = Rounding.of_sums
_CONV1, _FC1 = ("conv1.weight", "conv1.bias"), ("fc1.weight", "fc1.bias")

TABLE = (
    Stage(("conv1",), reference.conv1, ("images", *_CONV1), _SUMS),
    Stage(("relu",), reference.relu, ("conv1",), _exact),
    Stage(("pool",), reference.pool, ("relu",), _exact),
    Stage(("flatten",), reference.flatten, ("pool",), _exact),
    Stage(("logits",), reference.fc1, ("flatten", *_FC1), _SUMS),
    Stage(("loss",), reference.loss, ("logits", "labels"), _own(Rounding.of_loss)),
    Stage(
        ("grad.logits",),
        reference.logits_gradient,
        ("logits", "labels"),
        _own(Rounding.of_logits_gradient),
    ),
    Stage(
        ("grad.fc1.weight", "grad.fc1.bias"),
        reference.fc1_gradients,
        ("grad.logits", "flatten"),
        _SUMS,
    ),
    Stage(
        ("grad.conv1.weight", "grad.conv1.bias"),
        _conv1_gradients,
        ("grad.logits", "fc1.weight", "conv1", "images"),
        _two_sums,
    ),
    *(
        Stage((f"adam.{moment}.{name}",), formula, (f"{moment}.{name}", f"grad.{name}"), judge)
        for moment, formula, judge in (
            ("m", reference.adam_m, _own(Rounding.of_m)),
            ("v", reference.adam_v, _own(Rounding.of_v)),
        )
        for name in PARAMETERS
    ),
    *(
        Stage(
            (f"params.{name}",),
            _updated,
            (name, f"adam.m.{name}", f"adam.v.{name}", "step", "lr"),
            _own(Rounding.of_update),
        )
        for name in PARAMETERS
    ),
)
"""The training step, in the order of the computation."""

STAGES = tuple(name for stage in TABLE for name in stage.names)
"""What every backend traces; those of `adam` and `params` are the values after the update."""


def trace(
    state: State,
    images: Float[np.ndarray, "B 1 28 28"],
    labels: Int64[np.ndarray, "B"],
    *,
    lr: float,
) -> Trace:
    """Compute every stage of one training step in float64."""
    known = _inputs(state, images, labels, lr)
    for stage in TABLE:
        known |= zip(stage.names, stage.compute(*_of(known, stage)), strict=True)
    return {name: known[name] for name in STAGES}


def after(trace: Trace, step: int) -> State:
    """Return the state that a traced step ends in."""
    kept = {name: array for name, array in trace.items() if name.startswith(("adam.", "params."))}
    return State.from_named(kept, step=step)


def expectations(
    own: Trace,
    state: State,
    images: Float[np.ndarray, "B 1 28 28"],
    labels: Int64[np.ndarray, "B"],
    *,
    lr: float,
) -> Iterator[tuple[str, Expectation]]:
    """Yield what each stage of a subject's trace should be, given its own earlier stages.

    Nothing is computed before it is asked for, so that who finds a stage missing can stop there.

    Args:
        own: what the subject computed; the oracle's value takes the place of a missing stage.
        state: the state that it started from, in the precision that it promises to compute in.
        images: its input.
        labels: likewise.
        lr: Adam's learning rate.
    """
    known, rounding = _inputs(state, images, labels, lr), Rounding(state.dtype)
    for stage in TABLE:
        expected = stage.judge(rounding, stage.compute, *_of(known, stage))
        for name, expectation in zip(stage.names, expected, strict=True):
            yield name, expectation
            known[name] = np.asarray(own.get(name, expectation.value), dtype=np.float64)


def _inputs(state: State, images: Array, labels: Array, lr: float) -> dict[str, Any]:
    arrays = {"images": images, **state.params}
    for group, moments in (("m", state.adam_m), ("v", state.adam_v)):
        arrays |= {f"{group}.{name}": moment for name, moment in moments.items()}
    return {
        **{name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()},
        "labels": labels,
        "step": state.step + 1,
        "lr": lr,
    }


def _of(known: dict[str, Any], stage: Stage) -> list[Any]:
    return [known[name] for name in stage.inputs]
