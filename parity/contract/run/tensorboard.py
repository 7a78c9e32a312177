"""What TensorBoard shows of a training, by tensorboardX: the same tags from either framework."""

from pathlib import Path

from tensorboardX import SummaryWriter

from parity.contract.data.datasets import Dataset
from parity.contract.errors import OutputError, os_errors_as
from parity.contract.recipe import Recipe
from parity.contract.run.history import Epoch
from parity.contract.run.observers import Observer

TAGS = {
    "loss/train": lambda epoch: epoch.loss,
    "loss/test": lambda epoch: epoch.test_loss,
    "accuracy/test": lambda epoch: epoch.test_accuracy,
    "seconds/epoch": lambda epoch: epoch.seconds,
}
"""What is written after each epoch, by the number of the epoch."""


class TensorBoard(Observer):
    """Writes events into a folder, for `tensorboard --logdir`."""

    def __init__(self, folder: Path) -> None:
        with os_errors_as(OutputError, f"cannot write {folder}", "; give --tensorboard another"):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def start(self, backend: str, recipe: Recipe, dataset: Dataset) -> None:
        self._writer = writer = SummaryWriter(str(self._folder))
        lines = [f"    {name}: {value}" for name, value in recipe.to_json().items()]
        writer.add_text("recipe", "\n".join([f"    backend: {backend}", *lines]), 0)

    def epoch(self, record: Epoch) -> None:
        if self._writer is not None:
            for tag, value in TAGS.items():
                self._writer.add_scalar(tag, value(record), record.epoch)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
