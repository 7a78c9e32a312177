"""What a training reports: one record an epoch, to observers while it runs and as a whole after."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from parity.contract.datasets import Dataset
from parity.contract.errors import OutputError
from parity.contract.parameters import State
from parity.contract.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How the network does on the test images."""

    loss: float
    """Mean cross-entropy, in nats."""
    confusion: Int64[np.ndarray, "10 10"]
    """Number of images, by label and by predicted class."""

    @property
    def examples(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Fraction of the images that are classified right, 0 to 1."""
        return int(self.confusion.trace()) / self.examples


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training images."""

    epoch: int
    """Number of the epoch, from 1."""
    loss: float
    """Sum of the mean cross-entropies of its batches, as the tutorial prints it."""
    test_loss: float
    test_accuracy: float
    seconds: float
    """Wall-clock time of the training steps, compilation included, evaluation not."""

    def __str__(self) -> str:
        accuracy = f"{self.test_accuracy:.2%}"
        return f"Epoch {self.epoch}, Loss: {self.loss:.3f}, test {accuracy}, {self.seconds:.1f} s"


@dataclass(frozen=True, kw_only=True)
class History:
    """A finished training."""

    recipe: Recipe
    """With device and mode resolved to what was used."""
    epochs: list[Epoch]
    state: State
    """Final weights and optimiser state."""


class Observer:
    """Told how a training goes; each method does nothing unless overridden."""

    def start(self, backend: str, recipe: Recipe, dataset: Dataset) -> None:
        """Data and device are ready; the first step comes next."""

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Step `step` of `steps`, from 1, has been handed to the device."""

    def epoch(self, record: Epoch) -> None:
        """An epoch has ended."""


SILENT = Observer()
"""Reports nothing."""


class Observers(Observer):
    """Several observers as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def start(self, backend: str, recipe: Recipe, dataset: Dataset) -> None:
        for observer in self._observers:
            observer.start(backend, recipe, dataset)

    def step(self, epoch: int, step: int, steps: int) -> None:
        for observer in self._observers:
            observer.step(epoch, step, steps)

    def epoch(self, record: Epoch) -> None:
        for observer in self._observers:
            observer.epoch(record)


class RunFolder(Observer):
    """Writes recipe.json and history.jsonl, a line an epoch, to a folder.

    Nothing is written before the training starts.

    Raises:
        OutputError: the folder holds an earlier run, or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._recipe = folder / "recipe.json"
        self._history = folder / "history.jsonl"
        if self._history.exists():
            raise OutputError(f"{self._history} exists already; give --out another folder")

    def start(self, backend: str, recipe: Recipe, dataset: Dataset) -> None:
        text = json.dumps({"schema": 1, "backend": backend, **recipe.to_json()}, indent=2)
        try:
            self._recipe.parent.mkdir(parents=True, exist_ok=True)
            self._recipe.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise _cannot_write(self._recipe, error) from None

    def epoch(self, record: Epoch) -> None:
        try:
            with self._history.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(record), allow_nan=False) + "\n")
        except OSError as error:
            raise _cannot_write(self._history, error) from None


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror or error}; give --out another folder")
