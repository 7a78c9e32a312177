"""The network as a table of stages, from which the oracle's trace and every bound follow.

A stage is judged on what the subject itself computed upstream, within what rounding can do in that
one stage: so the first stage outside its bound is the one that is wrong.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity.contract.backend import Images, Labels, Trace
from parity.contract.state import PARAMETERS, State
from parity.truth import reference
from parity.truth.rounding import Expectation, Rounding, exact

Array = np.ndarray
Judge = Callable[..., Sequence[Expectation]]
"""From a precision's rounding, a formula and its inputs: what its results should be."""


class Stage(NamedTuple):
    """A formula of the network, and what rounding may do to it."""

    results: str
    """Names, in order; one, or a weight's and a bias's gradient together."""
    formula: Callable[..., Array | tuple[Array, ...] | float]
    inputs: str
    """Names of results, of `State.named()`, images, labels, step (counted from 1) and lr; moments
    and parameters are those before the update, until a stage of the same name has updated them."""
    judge: Judge

    def compute(self, *inputs: Any) -> tuple[Array, ...]:
        """Return the results, a float64 array each."""
        results = self.formula(*inputs)
        return tuple(map(np.asarray, results if isinstance(results, tuple) else (results,)))


def _exact(_: Rounding, formula: Callable, *inputs: Array) -> list[Expectation]:
    """Allow no error: what is selected or moved is not rounded."""
    return [exact(value) for value in formula(*inputs)]


def _own(analysis: Callable[..., Expectation]) -> Judge:
    """Judge by an error analysis that is made for the one formula."""
    return lambda rounding, _, *inputs: [analysis(rounding, *inputs)]


def _conv1_gradients(gradient: Array, weight: Array, conv1: Array, images: Array) -> tuple:
    pooled = reference.pooled_gradient(gradient, weight)
    return reference.conv1_gradients(pooled, reference.passed(conv1), images)


def _two_sums(
    rounding: Rounding, _: Callable, gradient: Array, weight: Array, conv1: Array, images: Array
) -> list[Expectation]:
    """Judge two sums, one after the other: ten classes to a window, then the batch's windows."""
    passed = reference.passed(conv1)

    def correlated(pooled: Array, images: Array) -> tuple[Array, Array]:
        return reference.conv1_gradients(pooled, passed, images)

    (pooled,) = rounding.of_sums(lambda g, w: (reference.pooled_gradient(g, w),), gradient, weight)
    inner = correlated(pooled.bound, np.abs(images))
    outer = rounding.of_sums(correlated, pooled.value, images)
    return [o.grown(i) for o, i in zip(outer, inner, strict=True)]


def _updated(p: Array, m: Array, v: Array, step: int, lr: float) -> Array:
    return p + reference.adam_update(m, v, step=step, lr=lr)


_SUMS, _GRADIENT = Rounding.of_sums, _own(Rounding.of_logits_gradient)
_M, _V, _UPDATE = map(_own, (Rounding.of_m, Rounding.of_v, Rounding.of_update))

TABLE = (
    Stage("conv1", reference.conv1, "images params.conv1.weight params.conv1.bias", _SUMS),
    Stage("relu", reference.relu, "conv1", _exact),
    Stage("pool", reference.pool, "relu", _exact),
    Stage("flatten", reference.flatten, "pool", _exact),
    Stage("logits", reference.fc1, "flatten params.fc1.weight params.fc1.bias", _SUMS),
    Stage("loss", reference.loss, "logits labels", _own(Rounding.of_loss)),
    Stage("grad.logits", reference.logits_gradient, "logits labels", _GRADIENT),
    Stage("grad.fc1.weight grad.fc1.bias", reference.fc1_gradients, "grad.logits flatten", _SUMS),
    Stage(
        "grad.conv1.weight grad.conv1.bias",
        _conv1_gradients,
        "grad.logits params.fc1.weight conv1 images",
        _two_sums,
    ),
    *(Stage(f"adam.m.{p}", reference.adam_m, f"adam.m.{p} grad.{p}", _M) for p in PARAMETERS),
    *(Stage(f"adam.v.{p}", reference.adam_v, f"adam.v.{p} grad.{p}", _V) for p in PARAMETERS),
    *(
        Stage(f"params.{p}", _updated, f"params.{p} adam.m.{p} adam.v.{p} step lr", _UPDATE)
        for p in PARAMETERS
    ),
)
"""The training step, in the order of the computation."""

STAGES = tuple(name for stage in TABLE for name in stage.results.split())
"""What every backend traces; those of `adam` and `params` are the values after the update."""


def trace(state: State, images: Images, labels: Labels, *, lr: float) -> Trace:
    """Compute every stage of one training step in float64."""
    known = _inputs(state, images, labels, lr)
    for stage in TABLE:
        inputs = (known[name] for name in stage.inputs.split())
        known |= zip(stage.results.split(), stage.compute(*inputs), strict=True)
    return {name: known[name] for name in STAGES}


def after(trace: Trace, step: int) -> State:
    """Return the state that a traced step ends in."""
    kept = {name: array for name, array in trace.items() if name.startswith(("adam.", "params."))}
    return State.from_named(kept, step=step)


def expectations(
    own: Trace, state: State, images: Images, labels: Labels, *, lr: float
) -> Iterator[tuple[str, Expectation]]:
    """Yield what each stage of a subject's trace should be, given its own earlier stages.

    The state is in the precision that the subject promises to compute in. The oracle's value takes
    the place of a stage that `own` lacks. Nothing is computed before it is asked for.
    """
    known, rounding = _inputs(state, images, labels, lr), Rounding(state.dtype)
    for stage in TABLE:
        inputs = (known[name] for name in stage.inputs.split())
        expected = stage.judge(rounding, stage.compute, *inputs)
        for name, expectation in zip(stage.results.split(), expected, strict=True):
            yield name, expectation
            known[name] = np.asarray(own.get(name, expectation.value), dtype=np.float64)


def _inputs(state: State, images: Array, labels: Array, lr: float) -> dict[str, Any]:
    arrays = {"images": images, **state.named()}
    known = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
    return {**known, "labels": labels, "step": state.step + 1, "lr": lr}
