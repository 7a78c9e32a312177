"""What all subjects share, judged by what it must be: data, pixels, pairing, initial weights.

A mistake in the contract makes no two subjects differ, so that it has to be looked for here.
"""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from parity.contract.data.datasets import Dataset, Split, pixels
from parity.contract.recipe import Recipe
from parity.contract.state import PARAMETERS, initial_state
from parity.judge.compare import Comparison, EvidenceError, Judged, compare, merge, refuse
from parity.judge.order import FALSE_ALARM, LARGEST, judge_chunks, judge_order
from parity.truth.originals import LABELS, original
from parity.truth.rounding import exact

INPUTS = {"conv1.weight": 9, "conv1.bias": 9, "fc1.weight": 2704, "fc1.bias": 2704}
"""Numbers that one output of a parameter's layer sums."""

SEEDS = 32
"""Seeds whose initial weights are pooled."""


def judge_shared(recipe: Recipe, examples: int) -> Judged:
    """Judge pixels, pairing, batch order, chunks and initial weights; `data` and `init` result.

    Args:
        recipe: its seed and batch size are taken.
        examples: training images of its data set; the order of LARGEST is judged too.
    """
    judged = {"data": judge_pixels(), "init": compare("init", np.zeros(1), exact(np.zeros(1)))}
    for definition in (
        lambda: judge_pairing(recipe.seed),
        lambda: judge_order(recipe, examples),
        lambda: judge_order(recipe, LARGEST),
        lambda: judge_chunks(recipe),
        lambda: judge_initial(recipe.seed),
    ):
        try:
            definition()
        except EvidenceError as error:
            merge(judged, error.comparison)
    return judged


def judge_data(loaded: Dataset, recipe: Recipe) -> Comparison:
    """Compare a loaded data set with its files, read once more: both splits, to the byte.

    Raises:
        DataError: the files are not there.
    """
    truth = original(recipe.dataset, recipe.data_dir)
    for labels, published in zip(truth[1::2], LABELS[recipe.dataset], strict=True):
        counts = np.bincount(labels, minlength=10)
        if not np.array_equal(counts, published):
            return Comparison.incomparable("data", f"has {counts} of each label")
    own = (loaded.train.images, loaded.train.labels, loaded.test.images, loaded.test.labels)
    return _worst(_compare_rows(a, b) for a, b in zip(own, truth, strict=True))


def judge_pixels() -> Comparison:
    """Compare the network's input for each grey value k with the float32 number nearest k/255.

    The images are random, so that none of them is its own transpose or reflection; in float64 the
    input is the same numbers.
    """
    images = np.random.RandomState(0).randint(0, 256, (8, 28, 28)).astype(np.uint8)
    images[0].flat[:256] = np.arange(256)
    nearest = np.array([np.float32(k / 255) for k in range(256)])
    expected = nearest[images][:, None]
    both = (pixels(images, "float32"), pixels(images, "float64"))
    if [array.dtype for array in both] != [np.float32, np.float64]:
        return Comparison.incomparable("data", f"has pixels of {both[0].dtype} for float32")
    return _worst(compare("data", array, exact(expected)) for array in both)


def judge_pairing(seed: int) -> None:
    """Require that a limit keeps the first images, each with its label, and all test images.

    Raises:
        EvidenceError: it keeps others.
    """
    stream = np.random.RandomState(seed % 2**32)
    train, test = (
        Split(stream.randint(0, 256, (n, 28, 28)).astype(np.uint8), stream.randint(0, 10, n))
        for n in (100, 30)
    )
    for limit in (1, 50, 99, 100, None):
        got = Dataset("random", train, test).first(limit)
        for own, expected in (
            (got.train.images, train.images[:limit]),
            (got.train.labels, train.labels[:limit]),
            (got.test.images, test.images),
            (got.test.labels, test.labels),
        ):
            if not np.array_equal(own, expected):
                mismatch = f"has other images or labels than the first ones with limit {limit}"
                refuse("data", mismatch)


def judge_initial(seed: int) -> None:
    """Require that initial weights and biases are drawn from U(±1/√n), n the inputs of an output.

    The largest magnitude of k such numbers is at most 1/√n, and below p^(1/k)/√n with chance p. The
    distribution of k of them is off the uniform one by more than √(ln(2/p)/2k) with chance p
    (Dvoretzky, Kiefer & Wolfowitz 1956; Massart 1990). Of numbers drawn one by one few are equal.

    Raises:
        EvidenceError: they are drawn otherwise.
    """
    states = [initial_state(seed + other) for other in range(SEEDS)]
    for name, n in INPUTS.items():
        drawn = np.stack([state.params[name].ravel() for state in states])
        limit, largest = np.float32(1 / np.sqrt(n)), np.abs(drawn[0]).max()
        _require(
            limit * FALSE_ALARM ** (1 / drawn[0].size) <= largest <= limit,
            f"draws {name} up to {largest:.3g} in magnitude, should be 1/√{n}",
        )
        values = np.sort(drawn.ravel()).astype(np.float64)
        gap = np.abs((values / limit + 1) / 2 - np.arange(values.size) / values.size).max()
        _require(
            gap <= math.sqrt(math.log(2 / FALSE_ALARM) / (2 * values.size)) + 1 / values.size,
            f"draws {name} from another distribution than the uniform one: off by {gap:.3f}",
        )
        _require(
            np.count_nonzero(np.diff(values)) > values.size / 2,
            f"draws the same numbers of {name} again",
        )
    first, double = states[0], initial_state(seed, "float64")
    for name in PARAMETERS:
        _require(
            np.array_equal(double.params[name], first.params[name]),
            f"draws other numbers of {name} in float64",
        )
        _require(
            not (first.adam_m[name].any() or first.adam_v[name].any() or first.step),
            f"starts with moments of {name} that are not 0, or not at step 0",
        )


def _require(holds: bool | np.bool, otherwise: str) -> None:
    if not holds:
        refuse("init", otherwise)


def _worst(comparisons: Iterable[Comparison]) -> Comparison:
    return max(comparisons, key=lambda comparison: comparison.severity)


def _compare_rows(got: np.ndarray, expected: np.ndarray) -> Comparison:
    if got.shape != expected.shape or got.dtype != expected.dtype:
        wrong = f"is {got.dtype} {got.shape}, should be {expected.dtype} {expected.shape}"
        return Comparison.incomparable("data", wrong)
    wrong = np.flatnonzero((got != expected).reshape(len(got), -1).any(axis=1))
    shown = wrong if wrong.size else np.arange(1)
    worst = compare("data", got[shown], exact(expected[shown]))
    place = (int(shown[worst.index[0]]), *worst.index[1:])
    return dataclasses.replace(worst, elements=got.size, index=place)
