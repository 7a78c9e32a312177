"""The command line `parity`."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from parity.commands.options import Bench, Check, Convert, Doctor, Selftest, Train
from parity.contract.cli import command
from parity.contract.errors import OutputError, RecipeError
from parity.contract.files.jsonable import to_json
from parity.contract.files.whole import write_whole
from parity.contract.interrupts import exit_on_interrupt
from parity.contract.recipe import Recipe

if TYPE_CHECKING:
    from parity.benchmark.result import Benchmark
    from parity.judge.check import Verdict
    from parity.judge.diagnosis import Diagnosis
    from parity.judge.selftest import SelfTest
    from parity.judge.trajectory import Trajectory


def main() -> int:
    """Run the command line and return its exit status."""
    exit_on_interrupt()
    description = "Prove that PyTorch and JAX compute the same training step, or say where not."
    commands = {
        "check": Check,
        "train": Train,
        "bench": Bench,
        "doctor": Doctor,
        "selftest": Selftest,
        "convert": Convert,
    }
    execute = {
        Check: _check,
        Train: _train,
        Bench: _bench,
        Doctor: _doctor,
        Selftest: _selftest,
        Convert: _convert,
    }
    return command.run(
        "parity", description, commands, lambda options: execute[type(options)](options)
    )


def _check(options: Check) -> int:
    from parity.judge.check import check

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
    from parity.contract.cli.console import ProgressBar
    from parity.judge.trajectory import train

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


def _bench(options: Bench) -> int:
    from parity.benchmark.bench import ARMS, bench
    from parity.contract.cli.console import ProgressBar

    _require_writable(json=options.json, report=options.report)
    pair = options.a, options.b
    if pair != (None, None) and (options.arms or None in pair):
        raise RecipeError("give --arms, or both --a and --b")
    with ProgressBar() as bar:
        benchmark = bench(
            arms=options.arms or tuple(arm for arm in pair if arm is not None) or ARMS,
            phases=options.phases,
            batch_sizes=options.batch_sizes,
            rounds=options.rounds,
            threads=options.threads,
            slowdown=options.slowdown,
            dataset=options.dataset,
            data_dir=options.data_dir,
            limit=options.limit,
            seed=options.seed,
            device=options.device,
            dtype=options.dtype,
            command=shlex.join(["parity", *sys.argv[1:]]),
            progress=bar.update,
        )
    _show(benchmark, options.json)
    _report(benchmark, options.report)
    return 0 if benchmark.passed else 1


def _doctor(options: Doctor) -> int:
    from parity.contract.cli.console import ProgressBar
    from parity.judge.diagnosis import diagnose

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
    from parity.contract.cli.console import ProgressBar
    from parity.judge.selftest import selftest

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
    from parity.commands.convert import convert

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


def _show(
    result: "Verdict | Trajectory | Benchmark | Diagnosis | SelfTest", file: Path | None
) -> None:
    """Print a result, and write it to `file` as JSON."""
    print(result.table())
    print(result)
    if file is not None:
        text = json.dumps(to_json(result), indent=2, allow_nan=False)
        _write(file, text + "\n")


def _report(result: "Verdict | Trajectory | Benchmark", file: Path | None) -> None:
    if file is not None:
        from parity.report.page import page

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
