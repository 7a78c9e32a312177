"""How far a training is, in batches, losses and records; and how it continues from a checkpoint."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int64

from parity.contract.batches import batch_count
from parity.contract.data.datasets import Dataset
from parity.contract.errors import CheckpointError, DivergenceError
from parity.contract.recipe import Recipe
from parity.contract.run.checkpoint import Checkpoint, digest
from parity.contract.run.history import Epoch, Evaluation
from parity.contract.state import State, initial_state

ORDER = ("dataset", "limit", "batch_size", "seed")
"""Fields of a recipe that make the batches of an epoch."""

KEPT = (*ORDER, "lr", "dtype")
"""Fields of a recipe that a training keeps, unless it is to become another one."""


class Progress:
    """How far a training has come: which epoch, how many of its batches, and what they lost.

    It continues at `start`, or begins at the recipe's initial state; it raises CheckpointError for
    a `start` of another training, or of other images.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, start: Checkpoint | None) -> None:
        self._recipe, self._dataset = recipe, dataset
        self.steps = batch_count(len(dataset.train), recipe.batch_size)
        """Batches of an epoch."""
        self.epoch, self.batch, self.loss_sum = 1, 0, 0.0
        self.records: list[Epoch] = []
        self.start = start.state if start else initial_state(recipe.seed, recipe.dtype)
        """The state that the first of the remaining steps starts from."""
        self.step = self.start.step
        """Steps made in all, those before the checkpoint included."""
        if start is None:
            return
        require_same_training(start, recipe)
        if start.dataset_sha256 not in (None, dataset.sha256):
            raise CheckpointError(
                f"the checkpoint's training saw other images than these of {dataset.name};"
                " name the right folder with --data-dir, or continue anyway with --override"
            )
        if start.batch > self.steps:
            raise CheckpointError(
                f"the checkpoint has done {start.batch} batches of an epoch that has"
                f" {self.steps} here; name the data set that it was trained on with --data-dir"
            )
        self.epoch, self.batch, self.loss_sum = start.epoch, start.batch, start.loss_sum
        self.records = list(start.epochs)

    @property
    def facts(self) -> dict[str, object]:
        """From where it trains, and on what: the same in each of its processes."""
        where = digest({"place": str(self)}, self.start)
        return {"images": self._dataset.sha256, "state": where}

    def chunks(self, every: int | None) -> Iterator[Int64[np.ndarray, "steps batch"]]:
        """Yield what is left of the present epoch's batches, some at a time; `add` each one.

        A chunk ends at each multiple of `chunk_size` batches, where the number of all steps is a
        multiple of `every`, and before a smaller last batch.
        """
        longest = chunk_size(self._recipe)
        rest = list(self._recipe.batches(self.epoch, len(self._dataset.train)))[self.batch :]
        while rest:
            size = longest - self.batch % longest
            if every is not None:
                size = min(size, every - self.step % every)
            chunk = [batch for batch in rest[:size] if len(batch) == len(rest[0])]
            rest = rest[len(chunk) :]
            yield np.stack(chunk)

    def add(self, losses: Float[np.ndarray, "steps"], state: State) -> None:
        """Count the steps that gave these losses; raise DivergenceError, which names the step."""
        for loss in losses.tolist():
            self.step += 1
            self.batch += 1
            self.loss_sum += loss
            if not math.isfinite(loss):
                raise DivergenceError(f"the loss of {self} is {loss}; lower --lr")
        for name, array in state.named().items():
            if not np.isfinite(array).all():
                raise DivergenceError(
                    f"{name} is not finite after {self}, the last of {len(losses)} between two"
                    " checks; lower --lr"
                )

    def end_epoch(self, test: Evaluation, *, seconds: float) -> Epoch:
        """Record the present epoch, and begin the next; raise DivergenceError."""
        if not math.isfinite(test.loss):
            raise DivergenceError(f"the test loss after {self} is {test.loss}; lower --lr")
        record = Epoch(
            epoch=self.epoch,
            loss=self.loss_sum,
            test_loss=test.loss,
            test_accuracy=test.accuracy,
            seconds=seconds,
        )
        self.records.append(record)
        self.next_epoch()
        return record

    def next_epoch(self) -> float:
        """Begin the next epoch without a record of the present one; return its loss."""
        loss = self.loss_sum
        self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0
        return loss

    def checkpoint(self, state: State, backend: str, versions: dict[str, str]) -> Checkpoint:
        """Return the checkpoint of this place, with a state that `add` has checked."""
        return Checkpoint(
            recipe=self._recipe,
            dataset_sha256=self._dataset.sha256,
            state=state,
            epoch=self.epoch,
            batch=self.batch,
            loss_sum=self.loss_sum,
            epochs=tuple(self.records),
            backend=backend,
            versions=versions,
        )

    def __str__(self) -> str:
        epoch, batch = (self.epoch, self.batch) if self.batch else (self.epoch - 1, self.steps)
        return f"step {self.step} (epoch {epoch}, batch {batch} of {self.steps})"


def chunk_size(recipe: Recipe) -> int:
    """Return how many steps run between two pauses: a fraction of a second."""
    compiled = 8192 if recipe.kernel == "fused" else 4096
    images, steps = (2048, 32) if recipe.mode == "eager" else (compiled, 256)
    return max(1, min(steps, images // recipe.batch_size))


def require_same_training(start: Checkpoint, recipe: Recipe, *, kept: Sequence[str] = KEPT) -> None:
    """Raise CheckpointError unless a training by this recipe may continue from a checkpoint."""
    old, new = vars(start.recipe), vars(recipe)
    if changed := [name for name in kept if old[name] != new[name]]:
        fields = ", ".join(f"{name} {old[name]!r}, not {new[name]!r}" for name in changed)
        raise CheckpointError(
            f"the checkpoint's training has {fields}; leave that out, or continue it as another"
            " training with --override"
        )
    if len(start.epochs) > recipe.epochs:
        raise CheckpointError(
            f"the checkpoint has {len(start.epochs)} epochs already, epochs is {recipe.epochs};"
            f" give --epochs {len(start.epochs)} or more"
        )


def as_another_training(start: Checkpoint, recipe: Recipe) -> Checkpoint:
    """Return a checkpoint for another training; the epoch begins again if it has other batches."""
    require_same_training(start, recipe, kept=())
    same_order = all(getattr(start.recipe, name) == getattr(recipe, name) for name in ORDER)
    place = {} if same_order else {"batch": 0, "loss_sum": 0.0}
    state = start.state.astype(recipe.dtype)
    return dataclasses.replace(start, recipe=recipe, dataset_sha256=None, state=state, **place)
