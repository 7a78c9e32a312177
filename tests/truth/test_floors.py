"""How small an error is found: a bound that is loosened, anywhere in `truth`, is noticed."""

import itertools
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest

from parity.contract.recipe import DType
from parity.contract.state import initial_state
from parity.judge.states import coarse_batch, coarse_state
from parity.truth import propagation, stages
from parity.truth.propagation import end_to_end
from parity.truth.rounding import Expectation, Rounding
from parity.truth.stages import expectations
from tests.truth.looser import LOOSER
from tests.truth.test_stages import LR, case

LATE = 10**9
"""A step after which Adam's correction of the bias is 1."""

ONE, NONE = np.ones(1), np.zeros(1)
LOG = np.log(10)
EVEN, ONE_UP = np.zeros((4, 10)), np.eye(10)[:1]
ZEROS = np.zeros(4, np.int64)
FAR = -1000.0 * np.eye(10)[:1]
E = np.e
ELEMENTARY = 4 + np.sqrt(10)
"""Roundings of exp (2), of a sum of ten (√10) and of log (2)."""

Analysis = Callable[[Rounding], Expectation]


def dot(size: int, value: float = 1.0) -> Analysis:
    def of(r: Rounding) -> Expectation:
        return r.of_sums(lambda a, b: (np.asarray(a @ b),), *np.full((2, size), value))[0]

    return of


ROUNDINGS: dict[str, tuple[Analysis, float]] = {
    "the product of two": (dot(1), 2 / 6),
    "a sum of ten: never more than all": (dot(10), 11 / 6 * 10),
    "a sum of a hundred: the square root": (dot(100), np.sqrt(101) * 100),
    "the loss of one, all even": (
        lambda r: r.of_loss(EVEN[:1], ZEROS[:1]),
        LOG + ELEMENTARY + 2 * LOG,
    ),
    "the loss of four": (lambda r: r.of_loss(EVEN, ZEROS), LOG + ELEMENTARY + 3 * LOG),
    "the loss of a certain one": (
        lambda r: r.of_loss(1000.0 * np.eye(10)[:1], ZEROS[:1]),
        ELEMENTARY + 1000 + 1000,
    ),
    "the loss of one taken for another": (
        lambda r: r.of_loss(1000.0 * np.eye(10)[:1], ZEROS[:1] + 1),
        ELEMENTARY + 1000 + 2 * 1000,
    ),
    "the loss of one slightly up": (
        lambda r: r.of_loss(ONE_UP, ZEROS[:1]),
        9 / (E + 9) + np.log(1 + 9 / E) + ELEMENTARY + 1 + 1 + 2 * np.log(1 + 9 / E),
    ),
    "a probability of a tenth": (
        lambda r: r.of_probabilities(EVEN),
        0.1 * (LOG + (LOG + ELEMENTARY) + ELEMENTARY),
    ),
    "the gradient of its logit in a batch of four": (
        lambda r: r.of_logits_gradient(EVEN, ZEROS),
        0.1 * (LOG + (LOG + ELEMENTARY) + ELEMENTARY) / 4 + 2 * 0.9 / 4,
    ),
    "the first moment, without a gradient": (lambda r: r.of_m(ONE, NONE), 2 * 1.2),
    "the first moment of a first gradient": (lambda r: r.of_m(NONE, ONE), 2 * 0.2),
    "the second moment, without a gradient": (lambda r: r.of_v(ONE, NONE), 4 * 0.999),
    "the second moment of a first gradient": (lambda r: r.of_v(NONE, ONE), 4 * 0.001),
    "a parameter that does not move": (lambda r: r.of_update(ONE, NONE, ONE, LATE, 1.0), 1),
    "an update of 1": (lambda r: r.of_update(NONE, ONE, ONE, LATE, 1.0), 1 + 1 / 2 + 8 + 1),
    "a first update of 1": (
        lambda r: r.of_update(NONE, 0.1 * ONE, 0.001 * ONE, 1, 1.0),
        (1 + 3 * 0.9 / 0.1) + (1 + 3 * 0.999 / 0.001) / 2 + 8 + 1,
    ),
}
"""Of the first number of each stage, how many roundings of one are allowed, counted by hand."""

FLUSHED: dict[str, tuple[Analysis, float]] = {
    "a sum of nothing": (dot(5, 0.0), 1),
    "a probability": (lambda r: r.of_probabilities(FAR), 1),
    "the gradient of a logit": (lambda r: r.of_logits_gradient(FAR, ZEROS[:1] + 1), 2),
    "the first moment": (lambda r: r.of_m(NONE, NONE), 3),
    "the second moment": (lambda r: r.of_v(NONE, NONE), 3),
    "a parameter": (lambda r: r.of_update(NONE, NONE, NONE, 1, LR), 1),
}
"""Where nothing is left but what may be flushed to zero: how many of the smallest normal number."""


def unit(dtype: DType) -> float:
    """λ = 6 roundings, of the precision and of the oracle, which computes in float64."""
    return 6 * ({"float32": 2.0**-24, "float64": 2.0**-53}[dtype] + 2.0**-53)


def miscounted() -> list[str]:
    """Return what the analyses allow other than is counted by hand."""
    wrong = []
    for dtype, counts in itertools.product(("float32", "float64"), (ROUNDINGS, FLUSHED)):
        size = unit(dtype) if counts is ROUNDINGS else float(np.finfo(dtype).tiny)
        for name, (analysis, count) in counts.items():
            bound = np.ravel(analysis(Rounding(np.dtype(dtype))).bound)[0]
            if bound != pytest.approx(count * size, rel=1e-6, abs=0):
                wrong.append(f"{name}, {dtype}: {bound / size}, not {count}")
    return wrong


def test_roundings_are_as_many_as_counted_by_hand() -> None:
    assert miscounted() == []


def floors() -> dict[str, list[float]]:
    """Return each stage's bound, the mean of its elements, in roundings of its largest value.

    Of a step from the initial weights, and of one with ties and zeros, half of them exact ones, and
    half of them missed by a few bounds.
    """
    found, (tied, classes) = {}, coarse_batch(1, 8, "float32")
    tied[4:] += np.float32(2**-20) * case(1, 4, "float32")[1]
    for state, (images, labels) in (
        (initial_state(1), case(1, 8, "float32")[1:]),
        (coarse_state(1, "float32"), (tied, classes)),
    ):
        right = stages.trace(state, images, labels, lr=LR)
        end = stages.after(right, state.step + 1)
        expected = dict(expectations(right, state, images, labels, lr=LR))
        expected |= end_to_end(end, state, images, labels, lr=LR)
        logits = propagation.logits(state, images)
        expected["predict"] = propagation.probabilities(logits, Rounding(state.dtype))
        for stage, (value, bound) in expected.items():
            scale = unit("float32") * np.abs(value).max()
            found.setdefault(stage, []).append(float(np.mean(bound) / scale))
    return found


FLOORS = {
    "conv1": (1.29, 0.7464),
    "relu": (0, 0),
    "pool": (0, 0),
    "flatten": (0, 0),
    "logits": (649.1, 565.6),
    "loss": (8.178, 5.775),
    "grad.logits": (2.418, 1.805),
    "grad.fc1.weight": (0.2897, 0.09724),
    "grad.fc1.bias": (0.993, 0.4186),
    "grad.conv1.weight": (303.3, 82.32),
    "grad.conv1.bias": (457.7, 131.9),
    "adam.m.conv1.weight": (0.7529, 0.6614),
    "adam.m.conv1.bias": (1.032, 0.8892),
    "adam.m.fc1.weight": (0.4503, 0.3325),
    "adam.m.fc1.bias": (1.451, 1.016),
    "adam.v.conv1.weight": (0.2968, 0.2689),
    "adam.v.conv1.bias": (0.5307, 0.4758),
    "adam.v.fc1.weight": (0.1174, 0.1653),
    "adam.v.fc1.bias": (0.7996, 0.825),
    "params.conv1.weight": (5.235, 1.505),
    "params.conv1.bias": (5.817, 1.462),
    "params.fc1.weight": (65.84, 0.6218),
    "params.fc1.bias": (80.3, 11.71),
    "step.loss": (329, 2222),
    "step.adam.m.conv1.weight": (6688, 2.502e06),
    "step.adam.m.conv1.bias": (10090, 2.109e06),
    "step.adam.m.fc1.weight": (84.75, 4782),
    "step.adam.m.fc1.bias": (281.7, 19470),
    "step.adam.v.conv1.weight": (3110, 3.591e06),
    "step.adam.v.conv1.bias": (6057, 3.086e06),
    "step.adam.v.fc1.weight": (30.09, 3318),
    "step.adam.v.fc1.bias": (203.8, 25670),
    "step.params.conv1.weight": (5.235, 1.505),
    "step.params.conv1.bias": (5.817, 1.462),
    "step.params.fc1.weight": (65.84, 0.6218),
    "step.params.fc1.bias": (80.3, 11.71),
    "predict": (582.4, 13270),
}
"""By stage, of the two steps; change it only with a bound's derivation."""


def changed() -> list[str]:
    """Return the stages whose bounds are not those that are pinned."""
    got = floors()
    assert got.keys() == FLOORS.keys()
    return [s for s, pinned in FLOORS.items() if got[s] != pytest.approx(pinned, rel=0.01)]


def test_the_floor_of_every_stage_is_pinned() -> None:
    assert changed() == []


def planted(monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str) -> None:
    """Put an edited module's functions and numbers in the place of its own, for this test."""
    if hasattr(Rounding.of_loss, "__wrapped__"):
        pytest.skip("the functions are wrapped by the checks of types")
    module = import_module(f"parity.truth.{name}")
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{name}: {source.count(old)} places read {old!r}"
    edited = ModuleType(module.__name__)
    edited.__dict__["__file__"] = module.__file__
    exec(source.replace(old, new), vars(edited))
    changes = 0
    for key, value in vars(edited).items():
        own = getattr(module, key)
        if isinstance(value, float) and value != own:
            monkeypatch.setattr(module, key, value)
            changes += 1
        functions = vars(value) if isinstance(value, type) else {key: value}
        for at, function in functions.items():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                right = vars(own)[at] if isinstance(value, type) else own
                changes += right.__code__ != function.__code__
                monkeypatch.setattr(right, "__code__", function.__code__)
    assert changes == 1


@pytest.mark.parametrize(
    ("name", "old", "new"), [(name, *edit) for name, edits in LOOSER.items() for edit in edits]
)
def test_a_bound_that_is_loosened_is_noticed(
    name: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, name, old, new)
    assert miscounted() or changed()
