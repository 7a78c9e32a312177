"""The command line of a backend: `torchcnn` and `jaxcnn` are this, each with its own."""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from parity.contract import command
from parity.contract.errors import RecipeError
from parity.contract.recipe import DatasetName, Device, DType, Mode, Recipe, require_integer

if TYPE_CHECKING:
    from parity.contract.backend import Backend
    from parity.contract.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train from the seed's initial weights, and print each epoch's loss and test accuracy."""

    recipe: Recipe = field(default_factory=Recipe)
    out: Path | None = None
    """Folder to write recipe.json, history.jsonl and checkpoint.safetensors to."""
    save_every: int | None = None
    """Steps after which the checkpoint is written, besides after each epoch; needs --out."""
    resume: Path | None = None
    """Checkpoint, or folder of a run, to go on from, by its recipe; of a folder, in it."""
    override: bool = False
    """Go on as another training where the command line or the images differ from the checkpoint."""
    quiet: bool = False
    """Print nothing but errors."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate the seed's initial, untrained weights on the test images: where training starts."""

    dataset: DatasetName = "mnist"
    """Data set. digits ships with scikit-learn and needs no network."""
    data_dir: Path | None = None
    """Folder of the data set's IDX files. Default: $CNN_DATA_DIR, else ./data."""
    seed: int = 0
    """Seed of the initial weights."""
    device: Device = "auto"
    """Where to compute. auto: the GPU (JAX: or TPU) that the framework finds, else the CPU."""
    mode: Mode = "auto"
    """Compiled or op by op. auto: what is usual, jit for JAX and eager for PyTorch."""
    dtype: DType = "float32"
    """Precision of weights and activations."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Print the layers, their output shapes and their parameter counts."""

    debug: bool = False
    """Show the traceback of an error."""


def main(backend: "Backend", description: str, argv: Sequence[str] | None = None) -> int:
    """Run a backend's command line and return its exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    commands = {"train": Train, "evaluate": Evaluate, "summary": Summary}

    def execute(options: Train | Evaluate | Summary) -> int:
        match options:
            case Train():
                _train(backend, options, command.given(args))
            case Evaluate():
                _evaluate(backend, options)
            case Summary():
                _summarise(backend)
        return 0

    return command.run(backend.__name__, description, commands, execute, args)


# Each command imports what it needs: `--help` waits for neither NumPy nor rich.


def _train(backend: "Backend", options: Train, given: set[str]) -> None:
    from parity.contract.checkpoint import read_checkpoint
    from parity.contract.console import ConsoleObserver, ProgressBar
    from parity.contract.interrupts import stopping_between_steps
    from parity.contract.observers import Observer, Observers, RunFolder
    from parity.contract.progress import as_another_training

    if options.override and options.resume is None:
        raise RecipeError("override needs --resume")
    start = read_checkpoint(options.resume) if options.resume else None
    recipe = _going_on(start, options.recipe, given, backend) if start else options.recipe
    if start and options.override:
        start = as_another_training(start, recipe)
    out = options.out or (options.resume if options.resume and options.resume.is_dir() else None)
    if options.save_every is not None:
        require_integer("save_every", options.save_every, at_least=1)
        if out is None:
            raise RecipeError("save_every needs --out, a folder for the checkpoint")
    with contextlib.ExitStack() as stack:
        observers: list[Observer] = []
        if out is not None:
            folder = RunFolder(
                out,
                versions=backend.versions(),
                every=options.save_every,
                start=start,
                own=_same_folder(options.resume, out),
                request=stack.enter_context(stopping_between_steps()),
            )
            observers.append(folder)
        if not options.quiet:
            bar = stack.enter_context(ProgressBar())
            observers.append(ConsoleObserver(bar, recipe))
        backend.fit(recipe, start=start, observer=Observers(*observers))


def _going_on(start: "Checkpoint", recipe: Recipe, given: set[str], backend: "Backend") -> Recipe:
    """Return the checkpoint's recipe, but for what the command line gives and where things lie.

    Device and mode are another backend's own choice again.
    """
    left = {"data_dir"} if start.backend == backend.__name__ else {"data_dir", "device", "mode"}
    kept = {field.name for field in dataclasses.fields(Recipe)} - left - given
    return dataclasses.replace(recipe, **{name: getattr(start.recipe, name) for name in kept})


def _same_folder(resume: Path | None, out: Path) -> bool:
    """Whether a checkpoint, or the folder that was named for it, is that of `out`."""
    return resume is not None and out.resolve() in (resume.resolve(), resume.resolve().parent)


def _summarise(backend: "Backend") -> None:
    from parity.contract.console import summary_lines

    print("\n".join(summary_lines(backend.summary())))


def _evaluate(backend: "Backend", options: Evaluate) -> None:
    from parity.contract.console import describe

    recipe = backend.resolve(
        Recipe(
            dataset=options.dataset,
            data_dir=options.data_dir,
            seed=options.seed,
            device=options.device,
            mode=options.mode,
            dtype=options.dtype,
        )
    )
    result = backend.evaluate(recipe)
    print(
        f"{describe(backend.__name__, recipe)}, untrained: loss {result.loss:.4f},"
        f" accuracy {result.accuracy:.2%} of {result.examples} test images"
    )
