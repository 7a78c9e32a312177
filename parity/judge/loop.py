"""Is the training loop the recipe's? A subject's own `fit`, replayed from state to state.

It is run in the precision, mode and batch size that it trains in, and with the kernel that training
chooses by itself. Each stretch between two pauses is made again from the state that it started in,
by the same steps cut at other places, and must end in the same state to the bit. Some of the steps
are judged against the oracle, so that nothing is wrong in both.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from parity.contract.batches import batch_count
from parity.contract.data.datasets import Dataset, Split
from parity.contract.recipe import Recipe
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.run.history import Epoch
from parity.contract.run.progress import chunk_size
from parity.judge.compare import Judged
from parity.judge.inference import FEW, IMAGES
from parity.judge.replay import EDGES, FIT_STAGES, judge_training
from parity.judge.states import trained_state
from parity.subjects.subject import Subject

SMALLEST = 64
"""Images in a batch of the many short epochs, at most."""

SMALL = 8
"""Images in a batch of a full chunk, in which training makes as many steps as it ever does."""

TESTED = FEW
"""Test images of each epoch."""


def judge_epochs(subject: Subject, recipe: Recipe, dataset: Dataset) -> Judged:
    """Judge as many epochs as a training has by default, of two batches each.

    Some images are left over by the recipe's limit.

    Args:
        subject: has a training loop.
        recipe: its seed, device, learning rate and precision are taken.
        dataset: its first images are.

    Raises:
        DeviceError: the device is not there.
    """
    size = min(SMALLEST, recipe.batch_size, len(dataset.train) // 3)
    recipe = dataclasses.replace(recipe, epochs=Recipe().epochs, batch_size=size, limit=2 * size)
    train = Split(dataset.train.images[: 3 * size], dataset.train.labels[: 3 * size])
    return judge_training(subject, recipe, Dataset(dataset.name, train, _few(dataset.test)), None)


@dataclass(frozen=True, kw_only=True)
class Boundaries:
    """The end of an epoch with every boundary in it, on more images than 16 bits count."""

    recipe: Recipe
    chunk: int
    """Batches in a call of the compiled loop, or between two pauses."""
    done: int
    """Batches of the epoch that come before."""

    @classmethod
    def of(cls, subject: Subject, recipe: Recipe) -> "Boundaries":
        """Return where a subject is judged: learning rate, seed and epochs are no default."""
        recipe = dataclasses.replace(
            recipe, epochs=11, lr=2 * recipe.lr, seed=recipe.seed + 1, batch_size=SMALL
        )
        chunk = chunk_size(subject.resolve(recipe))
        return cls(recipe=recipe, chunk=chunk, done=EDGES[-1] // (chunk * SMALL) * chunk)

    @property
    def images(self) -> int:
        """One full chunk, one more batch and one of half the size come after those done."""
        size = self.recipe.batch_size
        return (self.done + self.chunk + 1) * size + size // 2

    @property
    def start(self) -> Checkpoint:
        """Where the training continues."""
        epochs = range(1, self.recipe.epochs)
        steps = len(epochs) * batch_count(self.images, self.recipe.batch_size) + self.done
        return Checkpoint(
            recipe=self.recipe,
            dataset_sha256=None,
            state=trained_state(self.recipe.seed, self.recipe.dtype, step=steps),
            epoch=self.recipe.epochs,
            batch=self.done,
            loss_sum=1.0 if self.done else 0.0,
            epochs=tuple(
                Epoch(epoch=epoch, loss=1.0, test_loss=1.0, test_accuracy=0.5, seconds=0.0)
                for epoch in epochs
            ),
            backend="parity",
            versions={},
        )


def judge_boundaries(subject: Subject, recipe: Recipe, dataset: Dataset) -> Judged:
    """Judge the end of an epoch: a full chunk of batches, then a single one, then a smaller one.

    Args:
        subject: has a training loop.
        recipe: its seed, device and precision are taken.
        dataset: its images take turns.

    Raises:
        DeviceError: the device is not there.
    """
    at = Boundaries.of(subject, recipe)
    turns = np.arange(at.images) % len(dataset.train)
    train = Split(dataset.train.images[turns], dataset.train.labels[turns])
    return judge_training(
        subject, at.recipe, Dataset(dataset.name, train, _few(dataset.test)), at.start
    )


def covered(subject: Subject, recipe: Recipe, judged: Judged) -> str:
    """Return in words what was judged of a subject."""
    own = subject.resolve(recipe)
    said = [f"steps one by one in {own.dtype}, batches of {recipe.batch_size}"]
    if "predict" in judged:
        said.append(f"evaluation and prediction of {IMAGES} images, {FEW} in the last batch")
    if FIT_STAGES[-1] in judged:
        at = Boundaries.of(subject, recipe)
        said += [
            f"{Recipe().epochs} epochs of `fit`, two batches each",
            f"the end of one of {at.images:,} images:"
            f" {at.chunk} steps of {at.recipe.batch_size} in a call, then one, then a smaller one,"
            f" indices across {', '.join(f'{edge:,}' for edge in EDGES[1::2])}",
        ]
    return "; ".join(said)


def _few(test: Split) -> Split:
    return Split(test.images[:TESTED], test.labels[:TESTED])
