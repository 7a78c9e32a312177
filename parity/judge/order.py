"""The order of examples that all subjects share: each once, shuffled, in proper batches."""

import dataclasses
import itertools
import math

import numpy as np

from parity.contract.batches import batches
from parity.contract.data.datasets import Dataset, Split
from parity.contract.recipe import Recipe
from parity.contract.run.progress import Progress
from parity.judge.compare import refuse

LARGEST = 60_000
"""Training images of the largest data set."""

FALSE_ALARM = 1e-8
"""Chance that what is drawn as it should be is called wrong, by each statistic."""

COINCIDENCES = 12
"""As many numbers that stay where they are, or that follow their predecessor, has a random
permutation with chance 1/12! at most: 2e-9. Smaller permutations are not judged by it."""


def judge_order(recipe: Recipe, examples: int) -> None:
    """Require that each epoch visits every example once, in a random order and in proper batches.

    Orders of two epochs, or of two seeds, must have nothing to do with each other.

    Raises:
        EvidenceError: the order is another one.
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

    In each mode, with each kernel, from the start and from the middle of an epoch; whether the
    training is interrupted after each multiple of some steps or not.

    Raises:
        EvidenceError: they are others.
    """
    examples = min(LARGEST, 938 * recipe.batch_size)
    split = Split(np.zeros((examples, 28, 28), np.uint8), np.zeros(examples, np.int64))
    data = Dataset("zeros", split, split)
    whole = _epoch(recipe.seed, 1, examples, recipe.batch_size)
    for mode, kernel, every, done in itertools.product(
        ("eager", "jit"), ("layers", "fused"), (None, 50), (0, 7)
    ):
        own = dataclasses.replace(recipe, limit=None, mode=mode, kernel=kernel)
        progress, chunks = Progress(own, data, None), []
        progress.batch = progress.step = min(done, progress.steps - 1)
        rest = whole[progress.batch * recipe.batch_size :]
        for chunk in progress.chunks(every):
            before = progress.step
            progress.batch, progress.step = progress.batch + len(chunk), before + len(chunk)
            if every is not None and before // every != (progress.step - 1) // every:
                refuse("data", f"comes in chunks that do not end after each {every} steps")
            chunks.append(chunk.ravel())
        if not np.array_equal(np.concatenate([*chunks, []]), rest):
            refuse(
                "data",
                f"comes in other chunks than its batches, in mode {mode} with kernel {kernel}",
            )


def _epoch(seed: int, epoch: int, examples: int, batch_size: int) -> np.ndarray:
    """Return the order of an epoch's examples, once its batches are as they should be."""
    order = list(batches(seed=seed, epoch=epoch, examples=examples, batch_size=batch_size))
    sizes = [len(batch) for batch in order]
    full, rest = divmod(examples, batch_size)
    if sizes != [batch_size] * full + [rest] * (rest > 0):
        refuse(
            "data",
            f"comes in {len(sizes)} batches of {max(sizes, default=0)} at most, {sum(sizes)} of"
            f" {examples} examples, in epoch {epoch}",
        )
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
        if n > COINCIDENCES and np.count_nonzero(many) >= COINCIDENCES:
            count = np.count_nonzero(many)
            refuse("data", f"is not shuffled: {where}, {count:,} of {n:,} examples {what} {beside}")
    for distances, terms in ((moves, 2), (steps, 4)):
        mean, change = np.abs(distances).sum() / n**2, terms / n
        allowed = change * math.sqrt(n * math.log(2 / FALSE_ALARM) / 2) + 1 / n
        if abs(mean - 1 / 3) > allowed:
            refuse(
                "data",
                f"is not shuffled: {where}, examples move by {mean:.3f} of the whole from place to"
                f" place {beside}, should be 0.333 ± {allowed:.3f}",
            )
