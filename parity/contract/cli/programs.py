"""The command line of a backend: `torchcnn` and `jaxcnn` are this, each with its own."""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from parity.contract.cli import command
from parity.contract.cli.command import Debug, Where
from parity.contract.errors import DataError, DivergenceError, RecipeError, StoppedError
from parity.contract.processes import Processes
from parity.contract.recipe import DatasetName, DType, Kernel, Mode, Recipe, require_integer

if TYPE_CHECKING:
    from parity.contract.backend import Backend
    from parity.contract.group import Group
    from parity.contract.run.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Train(Debug):
    """Train from the seed's initial weights, and print each epoch's loss and test accuracy."""

    recipe: Recipe = field(default_factory=Recipe)
    group: Processes = field(default_factory=Processes)
    out: Path | None = None
    """Folder to write recipe.json, history.jsonl and checkpoint.safetensors to."""
    save_every: int | None = None
    """Steps after which the checkpoint is written, besides after each epoch; needs --out."""
    resume: Path | None = None
    """Folder of a run, or its checkpoint: continue it there, by its recipe. Another checkpoint
    needs --out to keep what follows. Give --data-dir again."""
    override: bool = False
    """Continue as another training where the command line or the images differ from the
    checkpoint."""
    quiet: bool = False
    """Print nothing but errors."""


@dataclass(frozen=True, kw_only=True)
class How(Where):
    """How a trained network is run."""

    mode: Mode = "auto"
    """Compiled, or op by op. auto: jit for JAX, eager for PyTorch, as their users do."""
    kernel: Kernel = "auto"
    """Layer by layer or as one matrix product. auto: what measures faster."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(How):
    """Evaluate a checkpoint of either backend on the test images.

    Without one, the seed's initial, untrained weights are evaluated: where training starts.
    """

    checkpoint: Path | None = None
    """Checkpoint, or the folder of a run."""
    dataset: DatasetName | None = None
    """Data set. Default: the checkpoint's, else mnist."""
    data_dir: Path | None = None
    """Folder of the data set's IDX files. Default: $CNN_DATA_DIR, else ./data."""
    seed: int | None = None
    """Seed of the initial weights, where there is no checkpoint."""
    dtype: DType | None = None
    """Precision of weights and activations. Default: the checkpoint's, else float32."""


@dataclass(frozen=True, kw_only=True)
class Predict(How):
    """Classify images: a line for each, with the digit and the probabilities of 0 to 9."""

    files: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")]]
    """PNG or IDX files of images of 28×28 pixels, white on black."""
    checkpoint: Path
    """Checkpoint of either backend, or the folder of a run."""


@dataclass(frozen=True, kw_only=True)
class Summary(Debug):
    """Print the layers, their output shapes and their parameter counts."""


_CHOSEN = ("device", "mode", "kernel")
"""Fields of a recipe that a backend chooses where they are "auto"."""


def main(backend: "Backend", description: str, argv: Sequence[str] | None = None) -> int:
    """Run a backend's command line and return its exit status."""
    args = sys.argv[1:] if argv is None else argv
    commands = {
        Train: partial(_train, backend, args=args),
        Evaluate: partial(_evaluate, backend),
        Predict: partial(_predict, backend),
        Summary: partial(_summarise, backend),
    }
    return command.run(backend.__name__, description, commands, args)


# Each command imports what it needs: `--help` waits for neither NumPy nor rich.


def _train(backend: "Backend", options: Train, *, args: Sequence[str]) -> None:
    with backend.joined(options.group) as group:
        try:
            _train_in(group, backend, options, args)
        except (StoppedError, DivergenceError) as error:
            error.silent = not group.reports
            raise


def _train_in(group: "Group", backend: "Backend", options: Train, args: Sequence[str]) -> None:
    from parity.contract.cli.console import ConsoleObserver, ProgressBar
    from parity.contract.interrupts import handling
    from parity.contract.run.observers import Observer, Observers, RunFolder

    own, start, recipe = _beginning(group, backend, options, args)
    out = options.out or own
    if options.save_every is not None:
        require_integer("save_every", options.save_every, at_least=1)
        if out is None:
            raise RecipeError("save_every needs --out, a folder for the checkpoint")
    group.require_same({"out": out, "save_every": options.save_every})
    observers: list[Observer] = []
    with contextlib.ExitStack() as stack:
        if out is not None:
            resuming = own is not None and own.resolve() == out.resolve()
            folder = RunFolder(
                out,
                versions=backend.versions(),
                every=options.save_every,
                resuming=resuming,
                group=group,
            )
            stack.enter_context(handling(folder.stop))
            observers.append(folder)
        if group.reports and not options.quiet:
            observers.append(ConsoleObserver(stack.enter_context(ProgressBar()), recipe))
        backend.fit(recipe, start=start, observer=Observers(*observers))


def _beginning(
    group: "Group", backend: "Backend", options: Train, args: Sequence[str]
) -> "tuple[Path | None, Checkpoint | None, Recipe]":
    """Return the folder of the run that is continued, where it continues, and the recipe."""
    from parity.contract.run.checkpoint import CHECKPOINT_FILE, read_checkpoint
    from parity.contract.run.progress import as_another_training, require_same_training

    own, recipe = options.resume, options.recipe
    if own is None:
        if options.override:
            raise RecipeError("override needs --resume")
        return None, None, recipe
    start, is_folder = group.first(lambda: (read_checkpoint(own), own.is_dir()))
    # what the command line leaves out is the checkpoint's; another backend chooses by itself
    auto = {} if start.backend == backend.__name__ else dict.fromkeys(_CHOSEN, "auto")
    default = Train(recipe=dataclasses.replace(start.recipe, data_dir=None, **auto))
    recipe = tyro.cli(Train, args=args[1:], default=default, config=command.CONFIG).recipe
    if options.override:
        start = as_another_training(start, recipe)
    require_same_training(start, recipe)  # before data are searched for, or downloaded
    if is_folder:
        return own, start, recipe
    # a checkpoint: of the run in its folder, or of none
    return own.parent if own.name == CHECKPOINT_FILE else None, start, recipe


def _summarise(backend: "Backend", _: Summary) -> None:
    from parity.contract.cli.console import summary_lines

    print(*summary_lines(backend.summary()), sep="\n")


def _evaluate(backend: "Backend", options: Evaluate) -> None:
    from parity.contract.cli.console import describe
    from parity.contract.run.checkpoint import read_checkpoint

    checkpoint = options.checkpoint and read_checkpoint(options.checkpoint)
    if checkpoint and options.seed is not None:
        raise RecipeError("seed belongs to untrained weights; leave out --seed or --checkpoint")
    recipe = checkpoint.recipe if checkpoint else Recipe()
    given = {name: value for name, value in vars(options).items() if value is not None}
    fields = {name: given[name] for name in given.keys() & vars(recipe).keys()}
    recipe = backend.resolve(dataclasses.replace(recipe, **fields))
    state = checkpoint.state.astype(recipe.dtype) if checkpoint else None
    result = backend.evaluate(recipe, state=state)
    if not math.isfinite(result.loss):
        raise DivergenceError(f"the loss is {result.loss}: the weights are too large")
    trained = f"after {checkpoint.state.step} steps" if checkpoint else "untrained"
    print(
        f"{describe(backend.__name__, recipe)}, {trained}: loss {result.loss:.4f},"
        f" accuracy {result.accuracy:.2%} of {result.examples} test images"
    )


def _predict(backend: "Backend", options: Predict) -> None:
    import numpy as np

    from parity.contract.data.images import read_images
    from parity.contract.run.checkpoint import read_checkpoint

    if not options.files:
        raise DataError("there is nothing to classify; name PNG or IDX files")
    checkpoint = read_checkpoint(options.checkpoint)
    chosen = {name: getattr(options, name) for name in _CHOSEN}
    recipe = dataclasses.replace(checkpoint.recipe, **chosen)
    for file in options.files:
        images = read_images(file)
        probabilities = backend.predict(recipe, state=checkpoint.state, images=images)
        if not np.isfinite(probabilities).all():
            raise DivergenceError(f"{file}: a probability is not finite: the weights are too large")
        for index, row in enumerate(probabilities):
            name = file if len(images) == 1 else f"{file}[{index}]"
            print(f"{name}: {row.argmax()}  {' '.join(f'{p:.4f}' for p in row)}")
