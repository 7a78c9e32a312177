"""The command line `parity`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from parity.contract import command
from parity.contract.errors import OutputError
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


def main() -> int:
    """Run the command line and return its exit status."""
    exit_on_interrupt()
    description = "Prove that PyTorch and JAX compute the same training step, or say where not."
    commands = {"check": Check, "train": Train, "doctor": Doctor, "selftest": Selftest}
    execute = {Check: _check, Train: _train, Doctor: _doctor, Selftest: _selftest}
    return command.run(
        "parity", description, commands, lambda options: execute[type(options)](options)
    )


def _check(options: Check) -> int:
    from parity.checks import check

    _require_writable(options.json)
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
    _report(verdict, options.json)
    return 0 if verdict.agrees else 1


def _train(options: Train) -> int:
    from parity.contract.console import ProgressBar
    from parity.trajectory import train

    _require_writable(options.json)
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
    _report(trajectory, options.json)
    return 0 if trajectory.agrees else 1


def _doctor(options: Doctor) -> int:
    from parity.contract.console import ProgressBar
    from parity.diagnosis import diagnose

    _require_writable(options.json)
    with ProgressBar() as bar:
        diagnosis = diagnose(
            device=options.device,
            dtype=options.dtype,
            seed=options.seed,
            runs=options.runs,
            progress=bar.update,
        )
    _report(diagnosis, options.json)
    return diagnosis.exit_code


def _selftest(options: Selftest) -> int:
    from parity.contract.console import ProgressBar
    from parity.selftest import selftest

    _require_writable(options.json)
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
    _report(result, options.json)
    return 0 if result.passed else 1


def _require_writable(file: Path | None) -> None:
    """Raise OutputError before anything is computed if `file` cannot be written."""
    if file is not None and (file.is_dir() or not file.parent.is_dir()):
        reason = "it is a folder" if file.is_dir() else "there is no such folder"
        raise OutputError(f"cannot write {file}: {reason}; give --json another file")


def _report(verdict: "Verdict | Trajectory | Diagnosis | SelfTest", file: Path | None) -> None:
    """Show a verdict, and write it to `file`."""
    print(verdict.table())
    print(verdict)
    if file is not None:
        text = json.dumps(verdict.to_json(), indent=2, allow_nan=False)
        try:
            file.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"cannot write {file}: {error.strerror}; give --json another file"
            ) from None


if __name__ == "__main__":
    sys.exit(main())
