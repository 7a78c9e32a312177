"""The command line `parity`."""

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parity.contract import command
from parity.contract.errors import OutputError
from parity.contract.interrupts import cleaning_up, exit_on_interrupt
from parity.contract.recipe import DatasetName, Device, DType, Recipe

if TYPE_CHECKING:
    from parity.checks import Verdict
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


def main() -> int:
    """Run the command line and return its exit status."""
    exit_on_interrupt()
    description = "Prove that PyTorch and JAX compute the same training step, or say where not."
    commands = {"check": Check, "train": Train}
    execute = {Check: _check, Train: _train}
    return command.run(
        "parity", description, commands, lambda options: execute[type(options)](options)
    )


def _check(options: Check) -> int:
    from parity.checks import check

    _require_writable(options)
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
    return _finish(verdict, options)


def _train(options: Train) -> int:
    from parity.contract.console import ProgressBar
    from parity.trajectory import train

    _require_writable(options)
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
    return _finish(trajectory, options)


def _require_writable(options: Check | Train) -> None:
    """Raise OutputError before anything is computed if a file that is asked for cannot be made."""
    for option, file in (("--json", options.json), ("--report", options.report)):
        obstacle = file and _obstacle(file)
        if obstacle:
            raise OutputError(f"cannot write {file}: {obstacle}; give {option} another file")
    if options.json is not None and options.json == options.report:
        raise OutputError(f"--json and --report both name {options.json}; give one another file")


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


def _finish(result: "Verdict | Trajectory", options: Check | Train) -> int:
    """Show a result, write what is asked for, and return the exit status."""
    print(result.table())
    print(result)
    if options.json is not None:
        text = json.dumps(result.to_json(), indent=2, allow_nan=False)
        _write(options.json, text + "\n", option="--json")
    if options.report is not None:
        from parity.report import page

        _write(options.report, page(result), option="--report")
    return 0 if result.agrees else 1


def _write(file: Path, text: str, *, option: str) -> None:
    """Write a file whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        if _is_special(file):
            file.write_text(text, encoding="utf-8")
            return
        target = file.resolve()  # where a link leads: the link stays
        with cleaning_up(), tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as folder:
            (Path(folder) / target.name).write_text(text, encoding="utf-8")
            (Path(folder) / target.name).replace(target)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {file}: {reason}; give {option} another file") from None


if __name__ == "__main__":
    sys.exit(main())
