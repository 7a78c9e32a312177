"""Options that several commands share; `--help` lists the last base first."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.contract.cli.command import Debug, Where
from parity.contract.errors import OutputError, os_errors_as
from parity.contract.recipe import DType


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Who is compared."""

    a: str = "torch:eager"
    """A subject: numpy, or torch:eager, torch:jit, jax:eager or jax:jit, with :fused or without;
    @N after it: N processes."""
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
