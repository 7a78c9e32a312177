"""What a training reports: how it does on the test images, a record an epoch, and the whole."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from parity.contract.notebook import shown
from parity.contract.recipe import Recipe
from parity.contract.state import State

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TUTORIAL = (278.862, 108.298, 78.554, 64.227, 55.757, 49.155, 44.339, 39.983, 36.913, 32.992)
"""The losses that the tutorial prints, each the sum of an epoch's 938 batches of 64."""

BAND = ((285.2, 19.0), (107.1, 7.3), (76.7, 3.3), (62.6, 2.2), (54.3, 2.0), (48.3, 1.7),
        (43.5, 1.5), (39.5, 1.4), (36.0, 1.4), (33.1, 1.4))  # fmt: skip
"""Mean and standard deviation of the same losses over 16 seeds."""


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

    @property
    def like_tutorial(self) -> bool:
        """Whether its losses may be compared with the tutorial's."""
        recipe = self.recipe
        ours = (recipe.dataset, recipe.batch_size, recipe.lr, recipe.limit)
        return ours in (("mnist", 64, 1e-3, None), ("mnist", 64, 1e-3, 60_000))

    def plot(self) -> "Figure":
        """Return a figure of loss and test accuracy by epoch."""
        from parity.contract.run.pictures import curves

        return curves(self.epochs, like_tutorial=self.like_tutorial)

    def _repr_html_(self) -> str:
        """Show itself in a notebook: the picture, and the line of each epoch."""
        return shown("\n".join(map(str, self.epochs)), self.plot())
