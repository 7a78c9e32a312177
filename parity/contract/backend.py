"""What the harness asks of a framework. `torchcnn` and `jaxcnn` are modules that provide it.

Everything that crosses this border is NumPy, in canonical layout; a third backend is one more
module with these names, and the harness needs no change.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int64

from parity.contract.datasets import Dataset
from parity.contract.history import Evaluation, History, Observer
from parity.contract.parameters import State
from parity.contract.recipe import DatasetName, Recipe

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
)
"""The stages of a step that every backend traces, in the order of the computation."""


class Layer(NamedTuple):
    """One line of a model's summary."""

    name: str
    output_shape: tuple[int, ...]
    """In the backend's own layout, without the batch axis."""
    parameters: tuple[int, ...]
    """Sizes of weight and bias; empty for a layer without any."""


class Backend(Protocol):
    """One framework's implementation of the network and its training."""

    __name__: str

    def load_dataset(self, name: DatasetName, data_dir: Path | None = None) -> Dataset:
        """Load a data set through the framework's own library."""
        ...

    def resolve(self, recipe: Recipe) -> Recipe:
        """Replace device and mode `auto`; raise DeviceError for what is not on this machine."""
        ...

    def computing(self, recipe: Recipe) -> AbstractContextManager[None]:
        """Set device, precision and determinism for a block, and restore them after it."""
        ...

    def import_state(self, state: State, recipe: Recipe) -> Any:
        """Translate a canonical state to the framework's own."""
        ...

    def export_state(self, state: Any) -> State:
        """Translate the framework's own state to a canonical one, by copy."""
        ...

    def trace(
        self,
        recipe: Recipe,
        state: State,
        images: Float[np.ndarray, "batch 1 28 28"],
        labels: Int64[np.ndarray, "batch"],
    ) -> Trace:
        """Compute one step's forward and backward pass, and return every stage of it."""
        ...

    def fit(self, recipe: Recipe, *, observer: Observer = ...) -> History:
        """Train from the recipe's initial state."""
        ...

    def evaluate(self, recipe: Recipe, *, state: State | None = None) -> Evaluation:
        """Evaluate a state, by default the recipe's initial one, on the test images."""
        ...

    def summary(self) -> list[Layer]:
        """Describe the layers of the network."""
        ...
