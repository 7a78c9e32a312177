"""Is the training loop the recipe's? A subject's own `fit` against a loop by hand, in float64."""

import dataclasses

import numpy as np

from parity.contract.batches import batches
from parity.contract.data.datasets import Dataset, Split, pixels
from parity.contract.recipe import Recipe
from parity.contract.state import initial_state
from parity.judge.compare import Comparison, compare
from parity.judge.steps import Judged, attempt, numbers
from parity.subjects.subject import OracleSession, Subject
from parity.truth.rounding import Expectation

FIT_STAGES = ("fit.losses", "fit.tests", "fit.state")
"""Each epoch's summed loss; each epoch's test loss and accuracy; the state it ends in."""

FREE_RUN_LIMIT = 1e-10
"""Largest difference of a parameter or loss between two float64 trainings that are the same.

Rounding starts at 1e-16 and grows with the training's own sensitivity; ten epochs of MNIST end at
4e-14. A mistake that matters, one lost batch say, moves parameters by a part of the learning rate:
1e-4 and more."""


def judge_fit(subject: Subject, recipe: Recipe, dataset: Dataset) -> Judged:
    """Judge what a subject's `fit` reports of two short epochs, in float64.

    Each has three batches, the last one smaller; some images are left over by the recipe's limit.
    In float64 trainings that are the same stay together.

    Args:
        subject: a backend's.
        recipe: its seed and device are taken.
        dataset: its first images are.

    Raises:
        DeviceError: the device is not there.
    """
    # nothing is what a loop that ignores it would take instead
    recipe = dataclasses.replace(
        recipe, epochs=2, batch_size=8, limit=20, lr=2 * recipe.lr, dtype="float64"
    )
    dataset = Dataset(dataset.name, _first(dataset.train, 30), _first(dataset.test, 50))
    history = attempt(FIT_STAGES[0], lambda: subject.fit(recipe, dataset))
    if isinstance(history, Comparison):
        return {FIT_STAGES[0]: history}
    losses = np.array([epoch.loss for epoch in history.epochs])
    tests = np.array([(epoch.test_loss, epoch.test_accuracy) for epoch in history.epochs])
    got = dict(zip(FIT_STAGES, (losses, tests, numbers(history.state)), strict=True))
    expected = _by_hand(recipe, dataset)
    return {
        stage: compare(
            stage,
            got[stage],
            Expectation(expected[stage], np.full(expected[stage].shape, FREE_RUN_LIMIT)),
        )
        for stage in FIT_STAGES
    }


def _first(split: Split, size: int) -> Split:
    return Split(split.images[:size], split.labels[:size])


def _by_hand(recipe: Recipe, dataset: Dataset) -> dict[str, np.ndarray]:
    """Return what FIT_STAGES should be."""
    data = dataset.first(recipe.limit)
    oracle = Subject.parse("numpy")
    session = OracleSession(recipe, initial_state(recipe.seed, recipe.dtype))
    losses, tests = [], []
    for epoch in range(1, recipe.epochs + 1):
        order = batches(
            seed=recipe.seed, epoch=epoch, examples=len(data.train), batch_size=recipe.batch_size
        )
        losses.append(
            sum(
                session.step(
                    pixels(data.train.images[batch], recipe.dtype), data.train.labels[batch]
                )
                for batch in order
            )
        )
        test = oracle.evaluate(recipe, session.export(), data.test)
        tests.append((test.loss, test.accuracy))
    return {
        "fit.losses": np.array(losses),
        "fit.tests": np.array(tests),
        "fit.state": numbers(session.export()),
    }
