"""What all subjects share, judged by what it must be: data, pixels, batches, initial weights.

A mistake in the contract makes no two subjects differ, so that it has to be looked for here. What
is required and does not hold raises EvidenceError.
"""

import dataclasses
import itertools
import math

import numpy as np

from parity.contract.batches import batches
from parity.contract.data.datasets import Dataset, Split, pixels
from parity.contract.recipe import Recipe
from parity.contract.run.progress import Progress
from parity.contract.state import PARAMETERS, initial_state
from parity.judge.compare import Comparison, EvidenceError, Judged, compare, merge, refuse, worst
from parity.subjects.subject import KERNELS, MODES
from parity.truth.originals import LABELS, original
from parity.truth.rounding import exact

INPUTS = {"conv1.weight": 9, "conv1.bias": 9, "fc1.weight": 2704, "fc1.bias": 2704}
"""Numbers that one output of a parameter's layer sums."""

SEEDS = 32
"""Seeds whose initial weights are pooled."""

LARGEST = 60_000
"""Training images of the largest data set."""

FALSE_ALARM = 1e-8
"""Chance that what is drawn as it should be is called wrong, by each statistic."""

COINCIDENCES = 12
"""As many numbers that stay where they are, or that follow their predecessor, has a random
permutation with chance 1/12! at most: 2e-9. Smaller permutations are not judged by it."""


def judge_shared(recipe: Recipe, examples: int) -> Judged:
    """Judge pixels, pairing, batch order, chunks and initial weights; `data` and `init` result.

    Of the recipe, seed and batch size are taken. The order of so many examples is judged, and that
    of LARGEST.
    """
    judged = {"data": judge_pixels(), "init": compare("init", np.zeros(1), exact(np.zeros(1)))}
    for require in (
        lambda: judge_pairing(recipe.seed),
        lambda: judge_order(recipe, examples),
        lambda: judge_order(recipe, LARGEST),
        lambda: judge_chunks(recipe),
        lambda: judge_initial(recipe.seed),
    ):
        try:
            require()
        except EvidenceError as error:
            merge(judged, error.comparison)
    return judged


def judge_data(loaded: Dataset, recipe: Recipe) -> Comparison:
    """Compare a loaded data set with its files, read once more: both splits, to the byte."""
    truth = original(recipe.dataset, recipe.data_dir)
    for labels, published in zip(truth[1::2], LABELS[recipe.dataset], strict=True):
        counts = np.bincount(labels, minlength=10)
        if not np.array_equal(counts, published):
            return Comparison(stage="data", mismatch=f"has {counts} of each label")
    return worst(_compare_rows(a, b) for a, b in zip(_arrays(loaded), truth, strict=True))


def judge_pixels() -> Comparison:
    """Compare the network's input for each grey value k with the float32 number nearest k/255.

    The images are random, so that none of them is its own transpose or reflection; in float64 the
    input is the same numbers.
    """
    images = np.random.RandomState(0).randint(0, 256, (8, 28, 28)).astype(np.uint8)
    images[0].flat[:256] = np.arange(256)
    nearest = np.array([np.float32(k / 255) for k in range(256)])
    both = (pixels(images, "float32"), pixels(images, "float64"))
    if [array.dtype for array in both] != [np.float32, np.float64]:
        return Comparison(stage="data", mismatch=f"has pixels of {both[0].dtype} for float32")
    return worst(compare("data", array, exact(nearest[images][:, None])) for array in both)


def judge_pairing(seed: int) -> None:
    """Require that a limit keeps the first images, each with its label, and all test images."""
    stream = np.random.RandomState(seed % 2**32)
    train, test = (
        Split(stream.randint(0, 256, (n, 28, 28)).astype(np.uint8), stream.randint(0, 10, n))
        for n in (100, 30)
    )
    for limit in (1, 50, 99, 100, None):
        got = Dataset("random", train, test).first(limit)
        expected = (train.images[:limit], train.labels[:limit], test.images, test.labels)
        if not all(map(np.array_equal, _arrays(got), expected)):
            refuse("data", f"has other images or labels than the first ones with limit {limit}")


def judge_order(recipe: Recipe, examples: int) -> None:
    """Require that each epoch visits every example once, in a random order and in proper batches.

    Orders of two epochs, or of two seeds, must have nothing to do with each other.
    """
    first, *others = (
        (_epoch(seed, epoch, examples, recipe.batch_size), f"seed {seed}, epoch {epoch}")
        for seed, epoch in ((recipe.seed, 1), (recipe.seed, 2), (recipe.seed + 1, 1))
    )
    place = np.argsort(first[0])
    for order, which in (first, *others):
        _require_random(order, f"in the order of {which}", "in the files")
    for order, which in others:
        _require_random(place[order], f"in the order of {which}", f"in that of {first[1]}")


def judge_chunks(recipe: Recipe) -> None:
    """Require that the chunks of an epoch of 938 batches are its batches, in order.

    That is so from the start and from the middle of an epoch, whether the training is interrupted
    after each multiple of some steps or not.
    """
    examples = min(LARGEST, 938 * recipe.batch_size)
    split = Split(np.zeros((examples, 28, 28), np.uint8), np.zeros(examples, np.int64))
    data = Dataset("zeros", split, split)
    whole = _epoch(recipe.seed, 1, examples, recipe.batch_size)
    for mode, kernel, every, done in itertools.product(MODES, KERNELS, (None, 50), (0, 7)):
        own = dataclasses.replace(recipe, limit=None, mode=mode, kernel=kernel)
        progress, chunks = Progress(own, data, None), []
        progress.batch = progress.step = min(done, progress.steps - 1)
        rest = whole[progress.batch * recipe.batch_size :]
        for chunk in progress.chunks(every):
            first = progress.step
            progress.batch, progress.step = progress.batch + len(chunk), first + len(chunk)
            if every is not None and first // every != (progress.step - 1) // every:
                refuse("data", f"comes in chunks that do not end after each {every} steps")
            chunks.append(chunk.ravel())
        if not np.array_equal(np.concatenate([*chunks, []]), rest):
            where = f"in mode {mode} with kernel {kernel}"
            refuse("data", f"comes in other chunks than its batches, {where}")


def judge_initial(seed: int) -> None:
    """Require that initial weights and biases are drawn from U(±1/√n), n the inputs of an output.

    The largest magnitude of k such numbers is at most 1/√n, and below p^(1/k)/√n with chance p. The
    distribution of k of them is off the uniform one by more than √(ln(2/p)/2k) with chance p
    (Dvoretzky, Kiefer & Wolfowitz 1956; Massart 1990). Of numbers drawn one by one few are equal.
    """
    states = [initial_state(seed + other) for other in range(SEEDS)]
    first, double = states[0], initial_state(seed, "float64")
    for name, n in INPUTS.items():
        drawn = np.stack([state.params[name].ravel() for state in states])
        limit, largest = np.float32(1 / np.sqrt(n)), np.abs(drawn[0]).max()
        if not limit * FALSE_ALARM ** (1 / drawn[0].size) <= largest <= limit:
            refuse("init", f"draws {name} up to {largest:.3g} in magnitude, should be 1/√{n}")
        values = np.sort(drawn.ravel()).astype(np.float64)
        gap = np.abs((values / limit + 1) / 2 - np.arange(values.size) / values.size).max()
        if not gap <= math.sqrt(math.log(2 / FALSE_ALARM) / (2 * values.size)) + 1 / values.size:
            which = "from another distribution than the uniform one"
            refuse("init", f"draws {name} {which}: off by {gap:.3f}")
        if np.count_nonzero(np.diff(values)) <= values.size / 2:
            refuse("init", f"draws the same numbers of {name} again")
    for name in PARAMETERS:
        if not np.array_equal(double.params[name], first.params[name]):
            refuse("init", f"draws other numbers of {name} in float64")
        if first.adam_m[name].any() or first.adam_v[name].any() or first.step:
            refuse("init", f"starts with moments of {name} that are not 0, or not at step 0")


def _arrays(data: Dataset) -> tuple[np.ndarray, ...]:
    return data.train.images, data.train.labels, data.test.images, data.test.labels


def _compare_rows(got: np.ndarray, expected: np.ndarray) -> Comparison:
    if got.shape != expected.shape or got.dtype != expected.dtype:
        mismatch = f"is {got.dtype} {got.shape}, should be {expected.dtype} {expected.shape}"
        return Comparison(stage="data", mismatch=mismatch)
    wrong = np.flatnonzero((got != expected).reshape(len(got), -1).any(axis=1))
    shown = wrong if wrong.size else np.arange(1)
    found = compare("data", got[shown], exact(expected[shown]))
    place = (int(shown[found.index[0]]), *found.index[1:])
    return dataclasses.replace(found, elements=got.size, index=place)


def _epoch(seed: int, epoch: int, examples: int, batch_size: int) -> np.ndarray:
    """Return the order of an epoch's examples, once its batches are as they should be."""
    order = list(batches(seed=seed, epoch=epoch, examples=examples, batch_size=batch_size))
    sizes = [len(batch) for batch in order]
    full, rest = divmod(examples, batch_size)
    if sizes != [batch_size] * full + [rest] * (rest > 0):
        got = f"{len(sizes)} batches of {max(sizes, default=0)} at most, {sum(sizes)} of {examples}"
        refuse("data", f"comes in {got} examples, in epoch {epoch}")
    flat = np.concatenate(order)
    if flat.dtype != np.int64 or not np.array_equal(np.sort(flat), np.arange(examples)):
        refuse("data", f"does not visit every example once in epoch {epoch}")
    return flat


def _require_random(order: np.ndarray, where: str, beside: str) -> None:
    """Require that a permutation is random, as far as places and neighbours show.

    A number stays, or follows its predecessor, with chance 1/n: k of them do with chance 1/k! at
    most. The mean distances of a number from its place and from its neighbour are n/3. Exchanging
    two numbers changes such a mean by c at most, so that it is off by more than t with chance
    2·exp(−2t²/(n·c²)) (Frieze & Pittel 2004, Lemma 11).
    """
    n, moves, steps = len(order), order - np.arange(len(order)), np.diff(order)
    for many, what in (
        (moves == 0, "are where they are"),
        (steps == 1, "follow each other as they do"),
        (steps == -1, "follow each other in the reverse order of those"),
    ):
        count = np.count_nonzero(many)
        if n > COINCIDENCES and count >= COINCIDENCES:
            refuse("data", f"is not shuffled: {where}, {count:,} of {n:,} examples {what} {beside}")
    for distances, terms in ((moves, 2), (steps, 4)):
        mean, change = np.abs(distances).sum() / n**2, terms / n
        allowed = change * math.sqrt(n * math.log(2 / FALSE_ALARM) / 2) + 1 / n
        if abs(mean - 1 / 3) > allowed:
            moved = f"examples move by {mean:.3f} of the whole from place to place {beside}"
            refuse("data", f"is not shuffled: {where}, {moved}, should be 0.333 ± {allowed:.3f}")
