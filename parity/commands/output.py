"""Where a command's result is shown: on the screen, as JSON, as a page."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.contract.cli.command import Debug
from parity.contract.errors import OutputError
from parity.contract.files.whole import write_whole

if TYPE_CHECKING:
    from parity.benchmark.result import Benchmark
    from parity.judge.check import Verdict
    from parity.judge.diagnosis import Diagnosis
    from parity.judge.selftest import SelfTest
    from parity.judge.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Output(Debug):
    """Options of a command that has a result."""

    json: Path | None = None
    """File to write everything that the screen shows to."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The command's other options, by name: what its function in the API takes."""
        here = ("debug", "json", "report")
        return {name: value for name, value in vars(self).items() if name not in here}

    def require_writable(self) -> None:
        """Try the files, before anything is computed.

        Raises:
            OutputError: one cannot be written, or two are the same.
        """
        files = [(name, vars(self).get(name)) for name in ("json", "report")]
        files = [(name, file) for name, file in files if file is not None]
        for name, file in files:
            try:
                _try(file)
            except OSError as error:
                reason = error.strerror or error
                raise OutputError(
                    f"cannot write {file}: {reason}; give --{name} another file"
                ) from None
        if len({file.resolve() for _, file in files}) < len(files):
            raise OutputError(f"--json and --report both name {files[0][1]}; give one another file")

    def show(self, result: "Verdict | Trajectory | Benchmark | Diagnosis | SelfTest") -> None:
        """Print a result, and write it as JSON where that was asked for.

        Raises:
            OutputError: it cannot be written.
        """
        from parity.contract.files.jsonable import to_json

        print(result.table())
        print(result)
        if self.json is not None:
            _write(self.json, json.dumps(to_json(result), indent=2, allow_nan=False) + "\n")


@dataclass(frozen=True, kw_only=True)
class Report(Output):
    """Options of a command whose result has a page."""

    report: Path | None = None
    """File to write an HTML page with tables and plots to."""

    def show(self, result: "Verdict | Trajectory | Benchmark") -> None:
        super().show(result)
        if self.report is not None:
            from parity.report.page import page

            _write(self.report, page(result))


def _try(file: Path) -> None:
    """Raise OSError if a file cannot be made or replaced. Nothing is left, whatever happens."""
    if _is_special(file):
        return
    if file.exists():
        file.open("r+b").close()
    tempfile.TemporaryFile(dir=file.resolve().parent).close()


def _is_special(file: Path) -> bool:
    """Whether it is a pipe or a device, as /dev/stdout may be."""
    return file.exists() and not (file.is_file() or file.is_dir())


def _write(file: Path, text: str) -> None:
    """Write a file whole or not at all; a pipe or a device, as it comes."""
    if _is_special(file):
        file.write_text(text, encoding="utf-8")
    else:
        write_whole(file, text.encode())
