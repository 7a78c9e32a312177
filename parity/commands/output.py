"""Where a command's result is shown: on the screen, as JSON, as a page."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.contract.cli.command import Debug
from parity.contract.errors import OutputError
from parity.contract.files.whole import write_whole


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

    @property
    def _files(self) -> dict[str, Path]:
        """The files to write, by option."""
        files = {name: vars(self).get(name) for name in ("json", "report")}
        return {name: file for name, file in files.items() if file is not None}

    def require_writable(self) -> None:
        """Try the files, before anything is computed.

        Raises:
            OutputError: one cannot be written, or two are the same.
        """
        for name, file in self._files.items():
            try:
                _try(file)
            except OSError as error:
                reason = error.strerror or error
                raise OutputError(
                    f"cannot write {file}: {reason}; give --{name} another file"
                ) from None
        files = list(self._files.values())
        if len({file.resolve() for file in files}) < len(files):
            raise OutputError(f"--json and --report both name {files[0]}; give one another file")

    def show(self, result: Any) -> None:
        """Print a result's table and verdict, and write the files that were asked for.

        Raises:
            OutputError: a file cannot be written.
        """
        print(result.table())
        print(result)
        for name, file in self._files.items():
            text = _page(result) if name == "report" else _json(result)
            if _is_special(file):
                file.write_text(text, encoding="utf-8")
            else:
                write_whole(file, text.encode())


@dataclass(frozen=True, kw_only=True)
class Report(Output):
    """Options of a command whose result has a page."""

    report: Path | None = None
    """File to write an HTML page with tables and plots to."""


def _json(result: Any) -> str:
    from parity.contract.files.jsonable import to_json

    return json.dumps(to_json(result), indent=2, allow_nan=False) + "\n"


def _page(result: Any) -> str:
    from parity.report.page import page

    return page(result)


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
