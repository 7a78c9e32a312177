"""The commands of `parity`: their options and what they do; `--help` lists the last base first."""

import importlib
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

import parity
from parity.contract.cli.command import Debug, Where
from parity.contract.errors import CheckpointError, OutputError, RecipeError, os_errors_as
from parity.contract.recipe import Data, DatasetName, DType, Recipe

if TYPE_CHECKING:
    from parity.contract.run.checkpoint import Checkpoint

_BACKENDS = {".pt": "torchcnn", "": "jaxcnn"}
"""Who reads and writes a checkpoint, by the suffix of its name."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Who is compared."""

    a: str = "torch:eager"
    """A subject: numpy, or torch:eager, torch:jit, jax:eager or jax:jit, with :fused or without."""
    b: str = "jax:jit"
    """Another."""


@dataclass(frozen=True, kw_only=True)
class Numbers(Where):
    """From which numbers, and how precise."""

    seed: int = 0
    """Seed of the initial weights and of the batches."""
    dtype: DType = "float32"
    """Precision of weights and activations."""


@dataclass(frozen=True, kw_only=True)
class Output(Debug):
    """Where a result is shown besides the screen."""

    json: Path | None = None
    """File to write everything that the screen shows to."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The command's other options, by name: what its function in the API takes."""
        here = ("debug", "json", "report")
        return {name: value for name, value in vars(self).items() if name not in here}

    def show(self, compute: Callable[[Callable[[str, int, int], None]], Any]) -> Any:
        """Compute a result, print its table and verdict, and write the files that were asked for.

        OutputError: a file cannot be written, or both are one; if possible before computing.
        """
        from parity.contract.cli.console import ProgressBar
        from parity.contract.files import json_text, write_whole

        files = {name: file for name in ("json", "report") if (file := vars(self).get(name))}
        for name, file in files.items():
            _require_writable(file, name)
        if len({file.resolve() for file in files.values()}) < len(files):
            raise OutputError(f"--json and --report both name {self.json}; give one another file")
        with ProgressBar() as bar:
            result = compute(bar.show)
        print(result.table(), result, sep="\n")
        for name, file in files.items():
            text = json_text
            if name == "report":
                from parity.report.page import page as text
            write = Path.write_bytes if _is_special(file) else write_whole
            write(file, text(result).encode())
        return result


@dataclass(frozen=True, kw_only=True)
class Report(Output):
    """Where a result that has a page is shown besides the screen."""

    report: Path | None = None
    """File to write an HTML page with tables and plots to."""


@dataclass(frozen=True, kw_only=True)
class Check(Report, Numbers, Data, Pair):
    """Compare a training step of two subjects, stage by stage, against float64 by hand.

    Exit status: 0 they agree, 1 they do not, 2 usage, data or environment error,
    3 one of them is not deterministic.
    """

    batch_size: int = 64
    """Images in the step."""

    def run(self) -> int:
        verdict = self.show(lambda _: parity.check(**self.arguments))
        return 0 if verdict.agrees else 1


@dataclass(frozen=True, kw_only=True)
class Train(Report, Numbers, Data, Pair):
    """Compare two subjects over a whole training: in float64, and in float32 step by step.

    Exit status: 0 they are the same algorithm, 1 they are not, 2 usage, data or environment error.
    """

    epochs: int = 1
    """Passes over the training images."""
    steps: int | None = None
    """Number of steps, instead of whole epochs."""
    batch_size: int = 64
    """Images in a step; the last batch of an epoch may be smaller."""
    limit: int | None = None
    """Train on the first LIMIT training images only."""
    dtype: DType = "float32"
    """float32 judges the float64 training first; float64 judges nothing else."""

    def run(self) -> int:
        fields = self.arguments
        harness = {name: fields.pop(name) for name in ("a", "b", "steps")}
        recipe = Recipe(**fields)
        result = self.show(lambda bar: parity.train(recipe=recipe, progress=bar, **harness))
        return 0 if result.agrees else 1


@dataclass(frozen=True, kw_only=True)
class Bench(Report, Numbers, Data):
    """Time subjects, and the tutorial's own loop, in turns; jit against eager.

    Each turn of an arm is a process of its own, with equal threads. The last arm runs twice, to
    show the noise; an arm does not count if its losses are not those of float64 by hand, or its
    process ends.

    Exit status: 0 done, 1 an arm does not count or the planted slowdown is not detected, 2 usage,
    data or environment error.
    """

    arms: tuple[str, ...] = ()
    """What to time: tutorial, the tutorial's loop, and subjects. Default: everything. The others
    are compared with the first."""
    a: str | None = None
    """With --b, instead of --arms: an arm."""
    b: str | None = None
    """Another."""
    phases: tuple[Literal["forward", "step", "epoch"], ...] = ("forward", "step", "epoch")
    """What of them to time."""
    batch_sizes: tuple[int, ...] = (64,)
    """Images in a step."""
    rounds: int = 9
    """Turns of each arm, 6 or more; each turn warms its arm up first."""
    threads: int | None = None
    """Threads of each arm. Default: the cores there are."""
    slowdown: float = 0.0
    """Run the last arm a third time, idling this fraction of its time: it has to be detected."""
    limit: int | None = None
    """Train on the first LIMIT training images only."""

    def run(self) -> int:
        plan, command = self.arguments, shlex.join(["parity", *sys.argv[1:]])
        arms, *pair = (plan.pop(name) for name in ("arms", "a", "b"))
        if pair != [None, None] and (arms or None in pair):
            raise RecipeError("give --arms, or both --a and --b")
        if named := arms or tuple(filter(None, pair)):
            plan["arms"] = named
        result = self.show(lambda bar: parity.bench(command=command, progress=bar, **plan))
        return 0 if result.passed else 1


@dataclass(frozen=True, kw_only=True)
class Doctor(Output, Numbers):
    """Say what this machine computes: versions, devices, flags, and whether a step is right.

    Each subject makes the same step of a training on the bundled digits: stage by stage against
    float64 by hand, and again and again against itself.

    Exit status: 0 every available subject is right and deterministic, 1 one computes something
    else, 2 usage, data or environment error, 3 one is not deterministic.
    """

    runs: int = 100
    """How often each subject makes the step, to see whether it repeats itself bit for bit."""

    def run(self) -> int:
        found = self.show(lambda bar: parity.diagnose(progress=bar, **self.arguments))
        return found.exit_code


@dataclass(frozen=True, kw_only=True)
class Selftest(Output, Where, Data, Pair):
    """Plant a catalogue of porting mistakes into both subjects: each must be found at its stage.

    Correct code, from many states, must not be called wrong. Exit status: 0 both hold, 1 not,
    2 usage, data or environment error, 3 a subject is not deterministic.
    """

    a: str = "torch:eager"
    """A subject: torch:eager, torch:jit, jax:eager or jax:jit, with :fused or without."""
    dataset: DatasetName = "digits"
    """Data set of the correct cases. digits ships with scikit-learn and needs no network."""
    cases: int = 40
    """Correct cases of each subject."""
    only: Literal["mistakes", "correct"] | None = None
    """Only one of the two parts."""

    def run(self) -> int:
        from parity.judge.selftest import selftest

        result = self.show(lambda bar: selftest(progress=bar, **self.arguments))
        return 0 if result.passed else 1


@dataclass(frozen=True, kw_only=True)
class Convert(Debug):
    """Convert a checkpoint: .safetensors, .pt, or a folder of Orbax, whose name has no suffix.

    Weights, optimiser state, position and recipe are kept. A state_dict alone gets moments of zero,
    the default recipe, and a training at its beginning.
    """

    source: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SOURCE")]]
    """Checkpoint to read, or the folder of a run."""
    target: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="TARGET")]]
    """Checkpoint to write."""
    overwrite: bool = False
    """Replace TARGET if it is there."""

    def run(self) -> None:
        checkpoint = convert(self.source, self.target, overwrite=self.overwrite)
        print(f"{self.source} → {self.target}: {checkpoint}")


def convert(source: Path, target: Path, *, overwrite: bool = False) -> "Checkpoint":
    """Read a checkpoint, or that of a run's folder, write it in another format, and return it.

    Raises:
        CheckpointError: `source` is missing, damaged or of no known format; names it.
        OutputError: `target` is there already, of no known format, or cannot be written.
    """
    from parity.contract.run.checkpoint import CHECKPOINT_FILE

    if (target / CHECKPOINT_FILE).exists():
        target /= CHECKPOINT_FILE
    if (target.exists() or target.is_symlink()) and not overwrite:
        raise OutputError(f"{target} is there already; name another one, or give --overwrite")
    write = _format_of(target, OutputError)[1]
    checkpoint = _format_of(source, CheckpointError)[0](source)
    write(target, checkpoint)
    return checkpoint


def _format_of(
    path: Path, error: type[CheckpointError | OutputError]
) -> "tuple[Callable[[Path], Checkpoint], Callable[[Path, Checkpoint], None]]":
    """Return what reads and what writes a checkpoint of the format that `path` is of."""
    from parity.contract.run.checkpoint import CHECKPOINT_FILE, read_checkpoint, write_checkpoint

    suffix = "" if path.is_dir() else path.suffix
    if suffix == ".safetensors" or (path / CHECKPOINT_FILE).exists():
        return read_checkpoint, write_checkpoint
    if suffix not in _BACKENDS:
        formats = "a file .safetensors or .pt, or a folder of Orbax, whose name has no suffix"
        raise error(f"{path} is of no known format: a checkpoint is {formats}")
    backend = importlib.import_module(_BACKENDS[suffix])
    return backend.read_native, backend.write_native


def _require_writable(file: Path, option: str) -> None:
    """Raise OutputError if a file cannot be made or replaced; the attempt leaves nothing."""
    if _is_special(file):
        return
    with os_errors_as(OutputError, f"cannot write {file}", f"; give --{option} another file"):
        if file.exists():
            file.open("r+b").close()
        tempfile.TemporaryFile(dir=file.resolve().parent).close()


def _is_special(file: Path) -> bool:
    """Whether it is a pipe or a device, as /dev/stdout may be."""
    return file.exists() and not (file.is_file() or file.is_dir())
