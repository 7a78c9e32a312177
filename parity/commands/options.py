"""Options that several commands share; `--help` lists the last base first."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

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

    spoken: ClassVar[bool] = False
    """Whether it says how far it is where no one can see a bar."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The command's other options, by name: what its function in the API takes."""
        here = ("debug", "json", "report")
        return {name: value for name, value in vars(self).items() if name not in here}

    def show(
        self,
        compute: Callable[[Callable[[str, int, int], None]], Any],
        passed: Callable[[Any], bool],
        *,
        verdict_first: bool = False,
    ) -> Any:
        """Compute a result, print its table and verdict, and write the files that were asked for.

        On a terminal the verdict is green where it is a good one, else red.

        OutputError: a file cannot be written, or both are one; if possible before computing.
        """
        from parity.contract.cli.console import ProgressBar, coloured
        from parity.contract.files import json_text, require_page, write_file

        files = {name: file for name in ("json", "report") if (file := vars(self).get(name))}
        for name, file in files.items():
            require_writable(file, name)
            if name == "report":
                require_page(file)
        if len({file.resolve() for file in files.values()}) < len(files):
            raise OutputError(f"--json and --report both name {self.json}; give one another file")
        with ProgressBar(spoken=self.spoken) as bar:
            result = compute(bar.show)
        table, verdict = result.table(), coloured(bar.console, str(result), good=passed(result))
        print(*((verdict, table) if verdict_first else (table, verdict)), sep="\n")
        for name, file in files.items():
            if name == "json":
                write_file(file, json_text(result).encode())
            else:
                from parity.report.page import write_report

                write_report(result, file)
        return result


@dataclass(frozen=True, kw_only=True)
class Report(Output):
    """Where a result that has a page is shown besides the screen."""

    report: Path | None = None
    """File to write an HTML page with tables and plots to."""


def require_writable(file: Path, option: str) -> None:
    """Raise OutputError if a file cannot be made or replaced; the attempt leaves nothing."""
    from parity.contract.files import is_special

    if is_special(file):
        return
    with os_errors_as(OutputError, f"cannot write {file}", f"; give --{option} another file"):
        if file.exists():
            file.open("r+b").close()
        tempfile.TemporaryFile(dir=file.resolve().parent).close()
