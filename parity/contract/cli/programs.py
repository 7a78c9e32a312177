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
    from parity.contract.run.observers import Observer


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
    """Folder of a run, or its checkpoint: continue it there, by its recipe, with the data where the
    run had them. Another checkpoint needs --out to keep what follows."""
    override: bool = False
    """Continue as another training where the command line or the images differ from the
    checkpoint."""
    quiet: bool = False
    """Print nothing but errors."""
    report: Path | None = None
    """File to write an HTML page to: losses, confusion, the worst mistakes, filters."""
    tensorboard: Path | None = None
    """Folder to write TensorBoard's events to."""


@dataclass(frozen=True, kw_only=True)
class How(Where):
    """How a trained network is run."""

    mode: Mode = "auto"
    """Compiled, or op by op. auto: jit for JAX, eager for PyTorch, as their users do."""
    kernel: Kernel = "auto"
    """Layer by layer or as one matrix product. auto: what measures faster."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(How):
    """Evaluate a checkpoint on the test images.

    Without one, the seed's initial, untrained weights are evaluated: where training starts.
    """

    checkpoint: Path | None = None
    """Folder of a run, or a checkpoint in any form: of either backend, or what torch.save or
    safetensors wrote of a state_dict."""
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
    """PNG, JPEG or IDX files. An image of 28×28 pixels is taken as it is; another is prepared as
    MNIST's were."""
    checkpoint: Path
    """Folder of a run, or a checkpoint in any form: of either backend, or what torch.save or
    safetensors wrote of a state_dict."""
    invert: bool = False
    """The images are black on white; MNIST's are white on black."""
    show: bool = False
    """Print each image as the network sees it."""


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

    resume = options.resume
    names = ("resume", "override", "out", "save_every", "report", "tensorboard")
    group.require_same(lambda: {name: getattr(options, name) for name in names})
    own = None if resume is None else group.first(lambda: _run_of(resume))
    out = options.out or own
    if options.save_every is not None:
        require_integer("save_every", options.save_every, at_least=1)
        if out is None:
            raise RecipeError("save_every needs --out, a folder for the checkpoint")
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
            stack.callback(folder.release)
            stack.enter_context(handling(folder.stop))
            observers.append(folder)
        # while no other training writes there
        start, recipe = _start_of(group, backend, options, args)
        if group.reports and not options.quiet:
            observers.append(ConsoleObserver(stack.enter_context(ProgressBar()), recipe))
        if group.reports and options.tensorboard is not None:
            from parity.contract.run.tensorboard import TensorBoard

            board = TensorBoard(options.tensorboard)
            stack.callback(board.close)
            observers.append(board)
        if options.report is None:
            backend.fit(recipe, start=start, observer=Observers(*observers))
        else:
            _train_and_report(group, backend, recipe, start, observers, options.report)


def _train_and_report(
    group: "Group",
    backend: "Backend",
    recipe: Recipe,
    start: "Checkpoint | None",
    observers: "Sequence[Observer]",
    file: Path,
) -> None:
    from parity.contract.files import write_file
    from parity.contract.run.observers import Observers
    from parity.contract.run.report import Witness, require_writable, training_page

    if group.reports:
        require_writable(file)
    seen = Witness()
    history = backend.fit(recipe, start=start, observer=Observers(*observers, seen))
    images = seen.dataset.test.images
    # in each process, since they may have to meet for it
    probabilities = backend.predict(history.recipe, state=history.state, images=images)
    if group.reports:
        page = training_page(history, seen, probabilities, backend.versions())
        write_file(file, page.encode())


def _run_of(resume: Path) -> Path | None:
    """Return the folder of the run that a checkpoint belongs to; None for one of no run."""
    from parity.contract.run.checkpoint import CHECKPOINT_FILE

    if (resume / CHECKPOINT_FILE).is_file():
        return resume
    return resume.parent if resume.name == CHECKPOINT_FILE else None


def _start_of(
    group: "Group", backend: "Backend", options: Train, args: Sequence[str]
) -> "tuple[Checkpoint | None, Recipe]":
    """Return the checkpoint to continue from, or None, and the recipe to train by."""
    from parity.contract.run.observers import data_of_run
    from parity.contract.run.progress import as_another_training, require_same_training

    resume = options.resume
    if resume is None:
        if options.override:
            raise RecipeError("override needs --resume")
        return None, options.recipe
    start, own = group.first(lambda: (_open(backend, resume), _run_of(resume)))
    # what the command line leaves out is the checkpoint's; another backend chooses by itself
    auto = {} if start.backend == backend.__name__ else dict.fromkeys(_CHOSEN, "auto")
    data_dir = own and data_of_run(own)
    default = Train(recipe=dataclasses.replace(start.recipe, data_dir=data_dir, **auto))
    recipe = tyro.cli(Train, args=args[1:], default=default, config=command.CONFIG).recipe
    if recipe.data_dir == data_dir and recipe.dataset != start.recipe.dataset:
        recipe = dataclasses.replace(recipe, data_dir=None)  # the run's folder has another data set
    if options.override:
        start = as_another_training(start, recipe)
    require_same_training(start, recipe)  # before data are searched for, or downloaded
    return start, recipe


def _summarise(backend: "Backend", _: Summary) -> None:
    from parity.contract.cli.console import summary_lines

    print(*summary_lines(backend.summary()), sep="\n")


def _evaluate(backend: "Backend", options: Evaluate) -> None:
    from parity.contract.cli.console import describe

    checkpoint = options.checkpoint and _open(backend, options.checkpoint, weights=True)
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
    trained = "untrained"
    if checkpoint is not None:
        step = checkpoint.state.step
        trained = f"after {step} steps" if step or checkpoint.versions else "of unknown steps"
    print(
        f"{describe(backend.__name__, recipe)}, {trained}: loss {result.loss:.4f},"
        f" accuracy {result.accuracy:.2%} of {result.examples} test images"
    )


def _open(backend: "Backend", path: Path, *, weights: bool = False) -> "Checkpoint":
    """Read a checkpoint in any form, and say what was made of another program's."""
    from parity.contract.run.opening import open_checkpoint

    checkpoint = open_checkpoint(path, read_folder=backend.read_native, weights=weights)
    _note(path, checkpoint.notes)
    return checkpoint


def _note(path: Path, notes: Sequence[str]) -> None:
    for note in notes:
        said = "".join(letter if letter.isprintable() else "?" for letter in note[:500])
        print(f"note: {path}: {said}", file=sys.stderr)


def _predict(backend: "Backend", options: Predict) -> None:
    import numpy as np

    from parity.contract.cli.console import drawn
    from parity.contract.data.pictures import read_images

    if not options.files:
        raise DataError("there is nothing to classify; name PNG, JPEG or IDX files")
    checkpoint = _open(backend, options.checkpoint, weights=True)
    chosen = {name: getattr(options, name) for name in _CHOSEN}
    recipe = dataclasses.replace(checkpoint.recipe, **chosen)
    for file in options.files:
        images, notes = read_images(file, invert=options.invert)
        _note(file, notes)
        probabilities = backend.predict(recipe, state=checkpoint.state, images=images)
        if not np.isfinite(probabilities).all():
            raise DivergenceError(f"{file}: a probability is not finite: the weights are too large")
        for index, row in enumerate(probabilities):
            name = file if len(images) == 1 else f"{file}[{index}]"
            if options.show:
                print(*drawn(images[index]), sep="\n")
            print(f"{name}: {row.argmax()}  {' '.join(f'{p:.4f}' for p in row)}")
