"""What the command lines show: epochs as they end, a progress bar on a terminal, tables."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from parity.contract.backend import Layer
from parity.contract.cli.tables import aligned
from parity.contract.data.datasets import Dataset
from parity.contract.recipe import Recipe
from parity.contract.run.history import Epoch
from parity.contract.run.observers import Observer
from parity.contract.run.progress import Progress as TrainingProgress
from parity.contract.state import State


def describe(backend: str, recipe: Recipe) -> str:
    """Return a line that says what is computed, on which data, where and how."""
    return (
        f"{backend}: {recipe.dataset}, {recipe.device}, {recipe.mode}, {recipe.kernel},"
        f" {recipe.dtype}, seed {recipe.seed}"
    )


class _Console(Console):
    """Leaves it to the command line what a closed pipe means; rich would exit with status 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class ProgressBar:
    """A progress bar where standard output is a terminal, nothing in a pipe."""

    def __init__(self) -> None:
        self.console = _Console(highlight=False, markup=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)

    def update(self, what: str, step: int, steps: int) -> None:
        """Show that `step` of `steps` is done."""
        self._bar.update(self._task, description=what, completed=step, total=steps)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()


class ConsoleObserver(Observer):
    """Prints a line an epoch, above a progress bar."""

    def __init__(self, bar: ProgressBar, recipe: Recipe) -> None:
        self._bar = bar
        self._epochs = recipe.epochs
        self._begun = False

    def start(self, backend: str, recipe: Recipe, dataset: Dataset) -> None:
        images = f"{len(dataset.train)} + {len(dataset.test)} images"
        self._bar.console.print(f"{describe(backend, recipe)}, {images}")

    def paused(self, progress: TrainingProgress, state: State) -> None:
        if not self._begun and progress.step:
            place = f"goes on with epoch {progress.epoch}, batch {progress.batch + 1}"
            if progress.epoch > self._epochs:
                place = f"all {self._epochs} epochs are done; give --epochs for more"
            self._bar.console.print(place)
        self._begun = True
        if progress.epoch <= self._epochs:
            self._bar.update(
                f"epoch {progress.epoch}/{self._epochs}", progress.batch, progress.steps
            )

    def epoch(self, record: Epoch) -> None:
        self._bar.console.print(str(record))


def summary_lines(layers: list[Layer]) -> list[str]:
    """Return a table of layers, output shapes and parameters, and their sum below it."""
    rows = [("layer", "output shape", "parameters")]
    for name, shape, sizes in layers:
        axes = ", ".join(map(str, shape))
        parts = " + ".join(f"{size:,}" for size in sizes)
        count = f"{parts} = {sum(sizes):,}" if sizes else "0"
        rows.append((name, f"(B, {axes})", count))
    totals = [sum(layer.parameters) for layer in layers if layer.parameters]
    parts = " + ".join(f"{total:,}" for total in totals)
    return [*aligned(rows, left=3), f"{parts} = {sum(totals):,} parameters"]
