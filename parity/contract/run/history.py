"""What a training reports: how it does on the test images, a record an epoch, and the whole."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from parity.contract.recipe import Recipe
from parity.contract.state import State


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How the network does on the test images."""

    loss: float
    """Mean cross-entropy, in nats."""
    confusion: Int64[np.ndarray, "10 10"]
    """Number of images, by label and by predicted class."""

    def __repr__(self) -> str:
        figures = f"loss {self.loss:.4f}, accuracy {self.accuracy:.2%}"
        return f"<Evaluation {figures} of {self.examples} images>"

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
    """Wall-clock time of the training steps, since its start or the checkpoint in it, with
    compilation and saving, without evaluation."""

    def __str__(self) -> str:
        accuracy = f"{self.test_accuracy:.2%}"
        return f"Epoch {self.epoch}, Loss: {self.loss:.3f}, test {accuracy}, {self.seconds:.1f} s"


@dataclass(frozen=True, kw_only=True)
class History:
    """A finished training."""

    recipe: Recipe
    """With device, mode and kernel resolved to what was used."""
    epochs: list[Epoch]
    state: State
    """Final weights and optimiser state."""

    def __repr__(self) -> str:
        last = f", the last {self.epochs[-1]}" if self.epochs else ""
        return f"<History {self.recipe.dataset}, {len(self.epochs)} epochs{last}>"
