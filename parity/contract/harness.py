"""What the harness drives and times, as far as it is the same for every backend.

A backend's `harness.py` completes these classes with what is its own. Both are used within the
backend's `computing`.
"""

import abc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from parity.contract import backend
from parity.contract.recipe import Recipe
from parity.contract.run.history import NOT_TESTED, Epoch
from parity.contract.run.progress import Progress, chunk_size

Native = Any
"""A backend's own state, or array."""

Images = Float[np.ndarray, "images 1 28 28"]
Labels = Int64[np.ndarray, "images"]
Order = Int64[np.ndarray, "steps batch"]
Losses = Float[np.ndarray, "steps"]

ManySteps = Callable[[Native, Native, Native, Order], tuple[Native, Losses]]
"""A backend's `many_steps`: makes a step on each batch of an order, at most a chunk of them."""


class Session(backend.Session, abc.ABC):
    """A training driven from outside; a backend adds `export` and `load`.

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
    def canonical(self, values: Any) -> backend.Trace:
        """Return the stages of a traced step up to its gradients, as canonical copies."""

    def step(self, images: Images, labels: Labels) -> float:
        return float(self.steps(images, labels, np.arange(len(labels))[None])[0])

    def steps(self, images: Images, labels: Labels, order: Order) -> Losses:
        data = self.to_device(images, labels)
        self._state, losses = in_chunks(self._many_steps, self._state, data, order, self._recipe)
        return losses

    def trace(self, images: Images, labels: Labels) -> backend.Trace:
        self._state, values = self._trace_step(self._state, *self.to_device(images, labels))
        return {**self.canonical(values), **self.export().named()}


class Workload(backend.Workload, abc.ABC):
    """A training on a batch and one on a data set; a backend adds `forward` and what it counts.

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

    def steps(self, repeats: int) -> Losses:
        order = np.tile(np.arange(len(self._batch[1])), (repeats, 1))
        self._on_batch, losses = in_chunks(
            self._many_steps, self._on_batch, self._batch, order, self._recipe
        )
        return losses

    def epoch(self) -> Epoch:
        started = time.perf_counter()
        self._on_data = self._train_epoch(self._on_data, self._progress)
        return self._progress.end_epoch(NOT_TESTED, seconds=time.perf_counter() - started)


def in_chunks(
    many_steps: ManySteps, state: Native, data: tuple[Native, Native], order: Order, recipe: Recipe
) -> tuple[Native, Losses]:
    """Make a step on each batch of an order of any length; return the state and the losses.

    Op by op they are one call; only a compiled loop has a length.
    """
    size, losses = chunk_size(recipe) if recipe.mode == "jit" else max(1, len(order)), []
    for start in range(0, len(order), size):
        state, part = many_steps(state, *data, order[start : start + size])
        losses.append(part)
    return state, np.concatenate(losses)
