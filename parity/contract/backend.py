"""What the harness asks of a framework. `torchcnn` and `jaxcnn` are modules that provide it.

Everything that crosses this border is NumPy, in canonical layout; a third backend is one more
module with these names, and the harness needs no change.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int64, UInt8

from parity.contract.data.datasets import Dataset, Split
from parity.contract.recipe import DatasetName, Recipe
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.run.history import Evaluation, History
from parity.contract.run.observers import Observer
from parity.contract.state import PARAMETERS, State

Trace = dict[str, np.ndarray]
"""One array for each of STAGES, in canonical layout."""

STAGES = (
    "conv1",
    "relu",
    "pool",
    "flatten",
    "logits",
    "loss",
    "grad.logits",
    "grad.fc1.weight",
    "grad.fc1.bias",
    "grad.conv1.weight",
    "grad.conv1.bias",
    *(f"{group}.{name}" for group in ("adam.m", "adam.v", "params") for name in PARAMETERS),
)
"""The stages of a step that every backend traces, in the order of the computation; those of `adam`
and `params` are the values after the update."""


class Layer(NamedTuple):
    """One line of a model's summary."""

    name: str
    output_shape: tuple[int, ...]
    """In the backend's own layout, without the batch axis."""
    parameters: tuple[int, ...]
    """Sizes of weight and bias; empty for a layer without any."""


class Session(Protocol):
    """A training that goes on one step at a time, in NumPy and canonical layout."""

    def step(
        self, images: Float[np.ndarray, "batch 1 28 28"], labels: Int64[np.ndarray, "batch"]
    ) -> float:
        """Make one update by the step that training uses; return the loss before it."""
        ...

    def trace(
        self, images: Float[np.ndarray, "batch 1 28 28"], labels: Int64[np.ndarray, "batch"]
    ) -> Trace:
        """Make one update with every stage in the open, and return them."""
        ...

    def export(self) -> State:
        """Return a copy of the present state."""
        ...

    def load(self, state: State) -> None:
        """Go on from another state."""
        ...


class Workload(Protocol):
    """A batch that stays on the device, to be timed."""

    def forward(self, repeats: int) -> None:
        """Compute the batch's probabilities so often, one call each, and wait for them."""
        ...

    def steps(self, repeats: int) -> Float[np.ndarray, "repeats"]:
        """Make so many of the steps that `fit` makes, on this batch; return their losses."""
        ...

    def product(self, size: int, repeats: int) -> None:
        """Multiply two square matrices of that size so often, and wait for it."""
        ...

    def programs(self) -> int:
        """Return how many programs have been compiled since this workload was opened."""
        ...

    def device_memory(self) -> int | None:
        """Return the most bytes that were in use on the device; None where it does not count."""
        ...


class Backend(Protocol):
    """One framework's implementation of the network and its training."""

    __name__: str

    def load_dataset(self, name: DatasetName, data_dir: Path | None = None) -> Dataset:
        """Load a data set through the framework's own library."""
        ...

    def resolve(self, recipe: Recipe) -> Recipe:
        """Replace device, mode and kernel `auto`; raise DeviceError for what is not there."""
        ...

    def versions(self) -> dict[str, str]:
        """Return the version of each package that it computes with."""
        ...

    def environment(self, recipe: Recipe) -> dict[str, str | int | bool]:
        """Return what a step of the recipe is computed with: versions, device, threads and flags.

        Raises DeviceError for a device that is not on this machine.
        """
        ...

    def session(self, recipe: Recipe, state: State) -> AbstractContextManager["Session"]:
        """Open a training at `state`, to be driven step by step from outside.

        Sessions of one dtype may be open at once, closed in the reverse order.
        """
        ...

    def workload(
        self,
        recipe: Recipe,
        state: State,
        images: Float[np.ndarray, "batch 1 28 28"],
        labels: Int64[np.ndarray, "batch"],
    ) -> AbstractContextManager["Workload"]:
        """Open a workload on one batch."""
        ...

    def fit(
        self,
        recipe: Recipe,
        *,
        dataset: Dataset | None = None,
        start: Checkpoint | None = None,
        observer: Observer = ...,
    ) -> History:
        """Train from the recipe's initial state or a checkpoint, on its data set or another one."""
        ...

    def evaluate(
        self, recipe: Recipe, *, state: State | None = None, split: Split | None = None
    ) -> Evaluation:
        """Evaluate a state, by default the recipe's initial one, on the test images or `split`."""
        ...

    def predict(
        self, recipe: Recipe, *, state: State, images: UInt8[np.ndarray, "images 28 28"]
    ) -> Float[np.ndarray, "images 10"]:
        """Return the probability of each digit for each image."""
        ...

    def summary(self) -> list[Layer]:
        """Describe the layers of the network."""
        ...

    def write_native(self, path: Path, checkpoint: Checkpoint) -> None:
        """Write a checkpoint in the framework's own format, all of it; raise OutputError."""
        ...

    def read_native(self, path: Path) -> Checkpoint:
        """Read a checkpoint in the framework's own format; raise CheckpointError."""
        ...
