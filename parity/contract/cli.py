"""The command line of a backend: `torchcnn` and `jaxcnn` are this, each with its own."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from parity.contract import command
from parity.contract.recipe import DatasetName, Device, DType, Mode, Recipe

if TYPE_CHECKING:
    from parity.contract.backend import Backend


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train from the seed's initial weights, and print each epoch's loss and test accuracy."""

    recipe: Recipe = field(default_factory=Recipe)
    out: Path | None = None
    """Folder to write recipe.json and history.jsonl to."""
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
    commands = {"train": Train, "evaluate": Evaluate, "summary": Summary}

    def execute(options: Train | Evaluate | Summary) -> int:
        match options:
            case Train():
                _train(backend, options)
            case Evaluate():
                _evaluate(backend, options)
            case Summary():
                _summarise(backend)
        return 0

    return command.run(backend.__name__, description, commands, execute, argv)


# Each command imports what it needs: `--help` waits for neither NumPy nor rich.


def _train(backend: "Backend", options: Train) -> None:
    from parity.contract.console import ConsoleObserver, ProgressBar
    from parity.contract.history import Observer, Observers, RunFolder

    with contextlib.ExitStack() as stack:
        observers: list[Observer] = []
        if options.out is not None:
            observers.append(RunFolder(options.out))
        if not options.quiet:
            bar = stack.enter_context(ProgressBar())
            observers.append(ConsoleObserver(bar, options.recipe))
        backend.fit(options.recipe, observer=Observers(*observers))


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
