"""What the harness drives and times, made of a backend's functions; used within its `computing`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.contract import backend
from parity.contract.backend import Images, Labels, Losses, Order
from parity.contract.data.datasets import Dataset, Split
from parity.contract.recipe import Recipe
from parity.contract.run.progress import Progress, chunk_size
from parity.contract.state import State

Native = Any
"""A backend's own state, or array."""

ManySteps = Callable[[Native, Native, Native, Order], tuple[Native, Losses]]
"""From a state, images and labels on the device and the indices of each batch, at most a chunk of
them: the state after a step on each, and their losses as float64."""


@dataclass(frozen=True, kw_only=True)
class Functions:
    """What a backend computes with, for a recipe whose device, mode and kernel are resolved."""

    to_device: Callable[[Images, Labels, Recipe], tuple[Native, Native]]
    on_device: Callable[[Split, Recipe], tuple[Native, Native]]
    import_state: Callable[[State, Recipe], Native]
    export_state: Callable[[Native], State]
    many_steps: ManySteps
    train_epoch: Callable[[Native, tuple[Native, Native], ManySteps, Progress], Native]
    trace_step: Callable[[Native, Native, Native], tuple[Native, Any]]
    predict_step: Callable[[Native, Native], Native]
    canonical: Callable[[Any], backend.Trace]
    """From a traced step up to its gradients: canonical copies."""

    def in_chunks(
        self, state: Native, data: tuple[Native, Native], order: Order, recipe: Recipe
    ) -> tuple[Native, Losses]:
        """Make a step on each batch of an order, however long; return the state and the losses."""
        # op by op they are one call; only a compiled loop has a length
        size, losses = chunk_size(recipe) if recipe.mode == "jit" else max(1, len(order)), []
        for start in range(0, len(order), size):
            state, part = self.many_steps(state, *data, order[start : start + size])
            losses.append(part)
        return state, np.concatenate(losses)


class Session(backend.Session):
    """A training driven from outside."""

    def __init__(self, recipe: Recipe, state: State, functions: Functions) -> None:
        self._recipe, self._functions = recipe, functions
        self._state = functions.import_state(state, recipe)

    def steps(self, images: Images, labels: Labels, order: Order) -> Losses:
        data = self._functions.to_device(images, labels, self._recipe)
        self._state, losses = self._functions.in_chunks(self._state, data, order, self._recipe)
        return losses

    def trace(self, images: Images, labels: Labels) -> backend.Trace:
        batch = self._functions.to_device(images, labels, self._recipe)
        self._state, values = self._functions.trace_step(self._state, *batch)
        return self._functions.canonical(values) | self.export().named()

    def export(self) -> State:
        return self._functions.export_state(self._state)

    def load(self, state: State) -> None:
        self._state = self._functions.import_state(state, self._recipe)


class Workload(backend.Workload):
    """A training on a batch and one on a data set; a backend adds what it counts."""

    def __init__(
        self, recipe: Recipe, state: State, dataset: Dataset, functions: Functions
    ) -> None:
        self._recipe, self._functions = recipe, functions
        train, first = dataset.train, next(recipe.batches(1, len(dataset.train)))
        self._data = functions.on_device(train, recipe)
        self._batch = functions.on_device(Split(train.images[first], train.labels[first]), recipe)
        self._on_batch, self._on_data = (functions.import_state(state, recipe) for _ in range(2))
        self._progress = Progress(recipe, dataset, None)
        self._square: Native = None

    def repeat(self, repeats: int, function: Callable[..., Native], *args: Native) -> None:
        """Call a function so often, and wait for the device."""

    def forward(self, repeats: int) -> None:
        self.repeat(repeats, self._functions.predict_step, self._on_batch, self._batch[0])

    def steps(self, repeats: int) -> Losses:
        order = np.tile(np.arange(len(self._batch[1])), (repeats, 1))
        self._on_batch, losses = self._functions.in_chunks(
            self._on_batch, self._batch, order, self._recipe
        )
        return losses

    def epoch(self) -> float:
        self._on_data = self._functions.train_epoch(
            self._on_data, self._data, self._functions.many_steps, self._progress
        )
        return self._progress.next_epoch()
