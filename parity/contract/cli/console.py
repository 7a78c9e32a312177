"""What the command lines show: epochs as they end, a progress bar on a terminal, tables."""

import contextlib
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from parity.contract.backend import Layer
from parity.contract.cli.tables import aligned
from parity.contract.data.datasets import Dataset
from parity.contract.group import Group
from parity.contract.recipe import Recipe
from parity.contract.run.history import Epoch
from parity.contract.run.observers import SILENT, Observer
from parity.contract.run.progress import Progress as TrainingProgress
from parity.contract.state import State


def describe(backend: str, recipe: Recipe) -> str:
    """Return a line that says what is computed, on which data, where and how."""
    how = (recipe.dataset, recipe.device, recipe.mode, recipe.kernel, recipe.dtype)
    return f"{backend}: {', '.join(how)}, seed {recipe.seed}"


class _Console(Console):
    """Leaves it to the command line what a closed pipe means; rich would exit with status 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class ProgressBar(Progress):
    """A progress bar where standard output is a terminal; nothing in a pipe.

    A `spoken` one says in a pipe how far it is, on standard error, at each tenth.
    """

    def __init__(self, *, spoken: bool = False) -> None:
        console = _Console(highlight=False, markup=False, soft_wrap=True)
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self.add_task("", total=None, visible=False)
        self._spoken = spoken and not console.is_terminal
        self._tenth = (0, 0)

    def show(self, what: str, step: int, steps: int) -> None:
        """Show that `step` of `steps` is done."""
        self.update(self._task, description=what, completed=step, total=steps, visible=True)
        tenth = (steps, 10 * step // max(1, steps))
        if self._spoken and tenth != self._tenth:
            print(f"{what}: {step} of {steps}", file=sys.stderr, flush=True)
            self._tenth = tenth


def coloured(console: Console, text: str, *, good: bool) -> str:
    """Return a verdict in green or red for a console that shows colours, else as it is."""
    with console.capture() as shown:
        console.print(Text(text, style="bold green" if good else "bold red"), end="")
    return shown.get()


class ConsoleObserver(Observer):
    """Prints a line an epoch, above a progress bar."""

    def __init__(self, bar: ProgressBar, recipe: Recipe) -> None:
        self._bar, self._epochs = bar, recipe.epochs
        self._begun, self._compiles = False, False

    def start(self, backend: str, recipe: Recipe, dataset: Dataset) -> None:
        self._compiles = recipe.mode == "jit"
        images = f"{len(dataset.train)} + {len(dataset.test)} images"
        self._bar.console.print(f"{describe(backend, recipe)}, {images}")

    def paused(self, progress: TrainingProgress, state: State) -> None:
        epoch, epochs, batch = progress.epoch, self._epochs, progress.batch
        place = f"continues with epoch {epoch}, batch {batch + 1}"
        if epoch <= epochs:
            compiling = ", compiling" if self._compiles and not self._begun else ""
            self._bar.show(f"epoch {epoch}/{epochs}{compiling}", batch, progress.steps)
        else:
            place = f"all {epochs} epochs are done; give --epochs for more"
        if not self._begun and progress.step:
            self._bar.console.print(place)
        self._begun = True

    def epoch(self, record: Epoch) -> None:
        self._bar.console.print(str(record))


@contextlib.contextmanager
def watching(observer: Observer | None, recipe: Recipe, group: Group) -> Iterator[Observer]:
    """Give the observer; for None, one that shows progress on a terminal or in a notebook.

    Of a group's processes one shows it.
    """
    if observer is not None:
        yield observer
        return
    with ProgressBar() as bar:
        seen = group.reports and (bar.console.is_terminal or bar.console.is_jupyter)
        yield ConsoleObserver(bar, recipe) if seen else SILENT


_SHADES = " .:-=+*#%@"


def drawn(image: UInt8[np.ndarray, "height width"]) -> list[str]:
    """Return an image as text, two characters a pixel: nothing for black, @ for white."""
    shades = (image.astype(int) * (len(_SHADES) - 1) + 127) // 255
    return ["".join(2 * _SHADES[shade] for shade in row).rstrip() for row in shades]


def summary_lines(layers: Sequence[Layer]) -> list[str]:
    """Return a table of layers, output shapes and parameters, and their sum below it."""

    def added(sizes: Sequence[int]) -> str:
        return f"{' + '.join(f'{size:,}' for size in sizes)} = {sum(sizes):,}" if sizes else "0"

    rows = [("layer", "output shape", "parameters")]
    for name, shape, sizes in layers:
        rows.append((name, f"(B, {', '.join(map(str, shape))})", added(sizes)))
    totals = [sum(layer.parameters) for layer in layers if layer.parameters]
    return [*aligned(rows, left=3), f"{added(totals)} parameters"]
