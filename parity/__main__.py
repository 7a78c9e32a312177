"""The command line `parity`."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from parity.contract import command
from parity.contract.errors import OutputError
from parity.contract.files import write_whole
from parity.contract.interrupts import exit_on_interrupt
from parity.contract.recipe import DatasetName, Device, DType, Recipe

if TYPE_CHECKING:
    from parity.checks import Verdict
    from parity.diagnosis import Diagnosis
    from parity.selftest import SelfTest
    from parity.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Check:
    """Compare a training step of two subjects, stage by stage, against float64 by hand.

    Exit status: 0 they agree, 1 they do not, 2 usage, data or environment error,
    3 one of them is not deterministic.
    """

    a: str = "torch:eager"
    """A subject: numpy, torch:eager, torch:jit, jax:eager or jax:jit."""
    b: str = "jax:jit"
    """Another."""
    dataset: DatasetName = "mnist"
    """Data set. digits ships with scikit-learn and needs no network."""
    data_dir: Path | None = None
    """Folder of the data set's IDX files. Default: $CNN_DATA_DIR, else ./data."""
    seed: int = 0
    """Seed of the weights and of the batch."""
    batch_size: int = 64
    """Images in the step."""
    device: Device = "auto"
    """Where to compute. auto: the GPU (JAX: or TPU) that a framework finds, else the CPU."""
    dtype: DType = "float32"
    """Precision of weights and activations."""
    json: Path | None = None
    """File to write everything that the screen shows to."""
    report: Path | None = None
    """File to write an HTML page with tables and plots to."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Compare two subjects over a whole training: in float64, and in float32 step by step.

    Exit status: 0 they are the same algorithm, 1 they are not, 2 usage, data or environment error.
    """

    a: str = "torch:eager"
    """A subject: numpy, torch:eager, torch:jit, jax:eager or jax:jit."""
    b: str = "jax:jit"
    """Another."""
    dataset: DatasetName = "mnist"
    """Data set. digits ships with scikit-learn and needs no network."""
    data_dir: Path | None = None
    """Folder of the data set's IDX files. Default: $CNN_DATA_DIR, else ./data."""
    epochs: int = 1
    """Passes over the training images."""
    steps: int | None = None
    """Number of steps, instead of whole epochs."""
    batch_size: int = 64
    """Images in a step; the last batch of an epoch may be smaller."""
    seed: int = 0
    """Seed of the initial weights and of the batch order."""
    limit: int | None = None
    """Train on the first LIMIT training images only."""
    device: Device = "auto"
    """Where to compute. auto: the GPU (JAX: or TPU) that a framework finds, else the CPU."""
    dtype: DType = "float32"
    """float32 looks at the float64 training first; float64 looks at nothing else."""
    json: Path | None = None
    """File to write everything that the screen shows to."""
    report: Path | None = None
    """File to write an HTML page with tables and plots to."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what this machine computes: versions, devices, flags, and whether a step is right.

    Each subject makes the same step of a training on the bundled digits: stage by stage against
    float64 by hand, and again and again against itself.

    Exit status: 0 every available subject is right and deterministic, 1 one computes something
    else, 2 usage, data or environment error, 3 one is not deterministic.
    """

    seed: int = 0
    """Seed of the weights and of the batch."""
    runs: int = 100
    """How often each subject makes the step, to see whether it repeats itself bit for bit."""
    device: Device = "auto"
    """Where to compute. auto: the GPU (JAX: or TPU) that a framework finds, else the CPU."""
    dtype: DType = "float32"
    """Precision of weights and activations."""
    json: Path | None = None
    """File to write everything that the screen shows to."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class Selftest:
    """Plant a catalogue of porting mistakes into both subjects: each must be found at its stage.

    Correct code, from many states, must not be called wrong. Exit status: 0 both hold, 1 not,
    2 usage, data or environment error, 3 a subject is not deterministic.
    """

    a: str = "torch:eager"
    """A subject: torch:eager, torch:jit, jax:eager or jax:jit."""
    b: str = "jax:jit"
    """Another."""
    dataset: DatasetName = "digits"
    """Data set of the correct cases. digits ships with scikit-learn and needs no network."""
    data_dir: Path | None = None
    """Folder of the data set's IDX files. Default: $CNN_DATA_DIR, else ./data."""
    cases: int = 40
    """Correct cases of each subject."""
    only: Literal["mistakes", "correct"] | None = None
    """Only one of the two parts."""
    device: Device = "auto"
    """Where to compute. auto: the GPU (JAX: or TPU) that a framework finds, else the CPU."""
    json: Path | None = None
    """File to write everything that the screen shows to."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert a checkpoint: .safetensors, .pt, or a folder of Orbax, whose name has no suffix.

    Weights, optimiser state, position and recipe go along. Of a state_dict alone the moments are
    zero, the recipe is the default one, and the training stands at its beginning.
    """

    source: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SOURCE")]]
    """Checkpoint to read, or the folder of a run."""
    target: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="TARGET")]]
    """Checkpoint to write."""
    overwrite: bool = False
    """Replace TARGET if it is there."""
    debug: bool = False
    """Show the traceback of an error."""


def main() -> int:
    """Run the command line and return its exit status."""
    exit_on_interrupt()
    description = "Prove that PyTorch and JAX compute the same training step, or say where not."
    commands = {
        "check": Check,
        "train": Train,
        "doctor": Doctor,
        "selftest": Selftest,
        "convert": Convert,
    }
    execute = {
        Check: _check,
        Train: _train,
        Doctor: _doctor,
        Selftest: _selftest,
        Convert: _convert,
    }
    return command.run(
        "parity", description, commands, lambda options: execute[type(options)](options)
    )


def _check(options: Check) -> int:
    from parity.checks import check

    _require_writable(json=options.json, report=options.report)
    verdict = check(
        a=options.a,
        b=options.b,
        dataset=options.dataset,
        data_dir=options.data_dir,
        seed=options.seed,
        batch_size=options.batch_size,
        device=options.device,
        dtype=options.dtype,
    )
    _show(verdict, options.json)
    _report(verdict, options.report)
    return 0 if verdict.agrees else 1


def _train(options: Train) -> int:
    from parity.contract.console import ProgressBar
    from parity.trajectory import train

    _require_writable(json=options.json, report=options.report)
    with ProgressBar() as bar:
        trajectory = train(
            a=options.a,
            b=options.b,
            recipe=Recipe(
                dataset=options.dataset,
                data_dir=options.data_dir,
                epochs=options.epochs,
                batch_size=options.batch_size,
                seed=options.seed,
                limit=options.limit,
                device=options.device,
                dtype=options.dtype,
            ),
            steps=options.steps,
            progress=bar.update,
        )
    _show(trajectory, options.json)
    _report(trajectory, options.report)
    return 0 if trajectory.agrees else 1


def _doctor(options: Doctor) -> int:
    from parity.contract.console import ProgressBar
    from parity.diagnosis import diagnose

    _require_writable(json=options.json)
    with ProgressBar() as bar:
        diagnosis = diagnose(
            device=options.device,
            dtype=options.dtype,
            seed=options.seed,
            runs=options.runs,
            progress=bar.update,
        )
    _show(diagnosis, options.json)
    return diagnosis.exit_code


def _selftest(options: Selftest) -> int:
    from parity.contract.console import ProgressBar
    from parity.selftest import selftest

    _require_writable(json=options.json)
    with ProgressBar() as bar:
        result = selftest(
            a=options.a,
            b=options.b,
            dataset=options.dataset,
            data_dir=options.data_dir,
            cases=options.cases,
            only=options.only,
            device=options.device,
            progress=bar.update,
        )
    _show(result, options.json)
    return 0 if result.passed else 1


def _convert(options: Convert) -> int:
    from parity.convert import convert

    checkpoint = convert(options.source, options.target, overwrite=options.overwrite)
    print(f"{options.source} → {options.target}: {checkpoint}")
    return 0


def _require_writable(**files: Path | None) -> None:
    """Raise OutputError before anything is computed if a file that is asked for cannot be made."""
    for option, file in files.items():
        obstacle = file and _obstacle(file)
        if obstacle:
            raise OutputError(f"cannot write {file}: {obstacle}; give --{option} another file")
    given = [file for file in files.values() if file is not None]
    if len(set(given)) < len(given):
        options = " and ".join(f"--{option}" for option in files)
        raise OutputError(f"{options} both name {given[0]}; give one another file")


def _obstacle(file: Path) -> str | None:
    if file.is_dir():
        return "it is a folder"
    if not file.parent.is_dir():
        return "there is no such folder"
    folder = [] if _is_special(file) else [file.resolve().parent]
    places = [*folder, *([file] if file.exists() else [])]
    return None if all(os.access(place, os.W_OK) for place in places) else "no permission"


def _is_special(file: Path) -> bool:
    """Whether it is a pipe or a device, as /dev/stdout may be."""
    return file.exists() and not file.is_file()


def _show(result: "Verdict | Trajectory | Diagnosis | SelfTest", file: Path | None) -> None:
    """Print a result, and write it to `file` as JSON."""
    print(result.table())
    print(result)
    if file is not None:
        text = json.dumps(result.to_json(), indent=2, allow_nan=False)
        _write(file, text + "\n")


def _report(result: "Verdict | Trajectory", file: Path | None) -> None:
    if file is not None:
        from parity.report import page

        _write(file, page(result))


def _write(file: Path, text: str) -> None:
    """Write a file whole or not at all; a pipe or a device, as it comes.

    Raises:
        OutputError: it cannot be written.
    """
    if _is_special(file):
        file.write_text(text, encoding="utf-8")
    else:
        write_whole(file, text.encode())


if __name__ == "__main__":
    sys.exit(main())
