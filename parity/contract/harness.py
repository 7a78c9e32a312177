"""What the harness drives and times, as far as it is the same for every backend.

A backend's `harness.py` completes these classes with its own functions on its own arrays. Both are
used within the backend's `computing`.
"""

import abc
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from parity.contract.backend import Trace
from parity.contract.recipe import Recipe
from parity.contract.run.history import NOT_TESTED, Epoch
from parity.contract.run.progress import Progress, chunk_size
from parity.contract.state import State

Native = Any
"""A backend's own state, or array."""

Images = Float[np.ndarray, "images 1 28 28"]
Labels = Int64[np.ndarray, "images"]
Order = Int64[np.ndarray, "steps batch"]
Losses = Float[np.ndarray, "steps"]

ManySteps = Callable[[Native, Native, Native, Order], tuple[Native, Losses]]
"""A backend's `many_steps`: makes a step on each batch of an order, at most a chunk of them."""


class Session(abc.ABC):
    """A training between two steps, driven from outside in NumPy and canonical layout.

    Args:
        recipe: with device, mode and kernel resolved.
        state: where it starts, as the backend has it.
        many_steps: makes steps as training does.
        trace_step: makes one step with every stage in the open.
    """

    def __init__(
        self,
        recipe: Recipe,
        state: Native,
        *,
        many_steps: ManySteps,
        trace_step: Callable[..., tuple[Native, Any]],
    ) -> None:
        self._recipe, self._state = recipe, state
        self._many_steps, self._trace_step = many_steps, trace_step

    @abc.abstractmethod
    def to_device(self, images: Images, labels: Labels) -> tuple[Native, Native]:
        """Return images and labels as the backend has them."""

    @abc.abstractmethod
    def canonical(self, values: Any) -> Trace:
        """Return the stages of a traced step up to its gradients, as canonical copies."""

    @abc.abstractmethod
    def export(self) -> State:
        """Return a copy of the present state."""

    @abc.abstractmethod
    def load(self, state: State) -> None:
        """Continue from another state."""

    def step(self, images: Images, labels: Labels) -> float:
        """Make one update by the step that training uses; return the loss before it."""
        return float(self.steps(images, labels, np.arange(len(labels))[None])[0])

    def steps(self, images: Images, labels: Labels, order: Order) -> Losses:
        """Make an update on each batch of an order, as training does; return the losses."""
        data = self.to_device(images, labels)
        self._state, losses = in_chunks(self._many_steps, self._state, data, order, self._recipe)
        return losses

    def trace(self, images: Images, labels: Labels) -> Trace:
        """Make one update with every stage in the open, and return them."""
        self._state, values = self._trace_step(self._state, *self.to_device(images, labels))
        return {**self.canonical(values), **self.export().named()}


class Workload(abc.ABC):
    """A batch and a data set that stay on the device, and a training on each, to be timed.

    Args:
        recipe: with device, mode and kernel resolved.
        batch: images and labels, as the backend has them.
        states: where the training on the batch starts, and the one on the data set.
        many_steps: makes steps as training does.
        train_epoch: makes the steps of an epoch on the data set, as `fit` does.
        progress: of that training.
    """

    def __init__(
        self,
        recipe: Recipe,
        batch: tuple[Native, Native],
        states: tuple[Native, Native],
        *,
        many_steps: ManySteps,
        train_epoch: Callable[[Native, Progress], Native],
        progress: Progress,
    ) -> None:
        self._recipe, self._batch = recipe, batch
        self._on_batch, self._on_data = states
        self._many_steps, self._train_epoch, self._progress = many_steps, train_epoch, progress

    @abc.abstractmethod
    def forward(self, repeats: int) -> None:
        """Compute the batch's probabilities so often, one call each, and wait for them."""

    @abc.abstractmethod
    def product(self, size: int, repeats: int) -> None:
        """Multiply two square matrices of that size so often, and wait for it."""

    @abc.abstractmethod
    def programs(self) -> int:
        """Return how many programs have been compiled since this workload was opened."""

    @abc.abstractmethod
    def device_memory(self) -> int | None:
        """Return the most bytes that were in use on the device; None where it does not count."""

    def steps(self, repeats: int) -> Losses:
        """Make so many of the steps that `fit` makes, on the batch; return the losses."""
        order = np.tile(np.arange(len(self._batch[1])), (repeats, 1))
        self._on_batch, losses = in_chunks(
            self._many_steps, self._on_batch, self._batch, order, self._recipe
        )
        return losses

    def epoch(self) -> Epoch:
        """Train for one epoch on the data set as `fit` does, without a test."""
        started = time.perf_counter()
        self._on_data = self._train_epoch(self._on_data, self._progress)
        return self._progress.end_epoch(NOT_TESTED, seconds=time.perf_counter() - started)


def in_chunks(
    many_steps: ManySteps,
    state: Native,
    data: tuple[Native, Native],
    order: Order,
    recipe: Recipe,
) -> tuple[Native, Losses]:
    """Make a step on each batch of an order of any length; return the state and the losses."""
    losses = []
    for chunk in _split(order, chunk_size(recipe)):
        state, part = many_steps(state, *data, chunk)
        losses.append(part)
    return state, np.concatenate(losses)


def _split(order: Order, size: int) -> Iterator[Order]:
    for start in range(0, len(order), size):
        yield order[start : start + size]
