"""What the harness asks of a framework's module, in NumPy and canonical layout.

A third backend is one more module with the names of `Stepper`; of `Backend` it has what it can.
"""

# A protocol's methods have no body.
# pyright: reportReturnType=false

from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int64, UInt8

from parity.contract.data.datasets import Dataset, Split
from parity.contract.group import Group
from parity.contract.processes import Processes
from parity.contract.recipe import DatasetName, Recipe
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.run.history import Evaluation, History
from parity.contract.run.observers import Observer
from parity.contract.state import State

Images = Float[np.ndarray, "images 1 28 28"]
Labels = Int64[np.ndarray, "images"]
Order = Int64[np.ndarray, "steps batch"]
"""Indices of the images of each batch."""
Losses = Float[np.ndarray, "steps"]

Trace = dict[str, np.ndarray]
"""One array for each stage of a step, in canonical layout; `parity.truth.stages` lists them."""


class Layer(NamedTuple):
    """One line of a model's summary."""

    name: str
    output_shape: tuple[int, ...]
    """In the backend's own layout, without the batch axis."""
    parameters: tuple[int, ...]
    """Sizes of weight and bias; empty for a layer without any."""


@runtime_checkable
class Session(Protocol):
    """A training between two steps, driven from outside in NumPy and canonical layout."""

    def steps(self, images: Images, labels: Labels, order: Order) -> Losses:
        """Make an update on each batch of an order, as training does; return the losses before."""

    def trace(self, images: Images, labels: Labels) -> Trace:
        """Make one update with every stage in the open, and return them."""

    def export(self) -> State:
        """Return a copy of the present state."""

    def load(self, state: State) -> None:
        """Continue from another state."""


@runtime_checkable
class Workload(Protocol):
    """A batch and a data set that stay on the device, and a training on each, to be timed."""

    def forward(self, repeats: int) -> None:
        """Compute the batch's probabilities so often, one call each, and wait for them."""

    def steps(self, repeats: int) -> Losses:
        """Make so many of the steps that `fit` makes, on the batch; return their losses."""

    def epoch(self) -> float:
        """Train for one epoch on the data set as `fit` does, without a test; return its loss."""

    def product(self, size: int, repeats: int) -> None:
        """Multiply two square matrices of that size so often, and wait for it."""

    def programs(self) -> int:
        """Return how many programs have been compiled since this workload was opened."""

    def device_memory(self) -> int | None:
        """Return the most bytes that were in use on the device; None where it does not count."""


@runtime_checkable
class Stepper(Protocol):
    """A backend that makes steps: all that `parity check` and `parity train` need."""

    __name__: str

    def resolve(self, recipe: Recipe) -> Recipe:
        """Replace device, mode and kernel `auto`; raise DeviceError for what is not there."""

    def environment(self, recipe: Recipe) -> dict[str, str | int | bool]:
        """Return versions, device, threads and flags of a step; raise DeviceError."""

    def load_dataset(self, name: DatasetName, data_dir: Path | None = None) -> Dataset:
        """Load a data set through the framework's own library."""

    def session(self, recipe: Recipe, state: State) -> AbstractContextManager[Session]:
        """Open a training at `state`; several of one dtype may be open, closed in reverse order."""


@runtime_checkable
class Backend(Stepper, Protocol):
    """One framework's implementation of the network and its training, whole."""

    def fit(
        self,
        recipe: Recipe,
        *,
        dataset: Dataset | None = None,
        start: Checkpoint | None = None,
        observer: Observer | None = None,
    ) -> History:
        """Train from the recipe's initial state or a checkpoint, on its data set or another one."""

    def joined(self, processes: Processes) -> AbstractContextManager[Group]:
        """Train together with other processes in this block; raise ProcessError, DeviceError."""

    def evaluate(
        self, recipe: Recipe, *, state: State | None = None, split: Split | None = None
    ) -> Evaluation:
        """Evaluate a state, by default the recipe's initial one, on the test images or `split`."""

    def predict(
        self, recipe: Recipe, *, state: State, images: UInt8[np.ndarray, "images 28 28"]
    ) -> Float[np.ndarray, "images 10"]:
        """Return the probability of each digit for each image."""

    def workload(
        self, recipe: Recipe, state: State, dataset: Dataset
    ) -> AbstractContextManager[Workload]:
        """Open trainings from `state` on a data set and on its first batch, to be timed."""

    def write_native(self, path: Path, checkpoint: Checkpoint) -> None:
        """Write a checkpoint in the framework's own format, all of it; raise OutputError."""

    def read_native(self, path: Path) -> Checkpoint:
        """Read a checkpoint in the framework's own format; raise CheckpointError."""

    def versions(self) -> dict[str, str]:
        """Return the version of each package that it computes with."""

    def summary(self) -> list[Layer]:
        """Describe the layers of the network."""
