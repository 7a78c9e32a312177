"""Files that are whole or not there, whenever the process is killed; results as JSON values."""

import contextlib
import dataclasses
import json
import math
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from parity.contract.errors import OutputError, os_errors_as
from parity.contract.interrupts import cleaning_up

SCHEMA = 2
"""Of every result that `--json` writes."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, or replace it, so that at any instant the old or the new one is there.

    A killed writer leaves a temporary file, and the next one removes it. OutputError: it cannot be
    written, and what was there is untouched, unless only the folder did not get to the disk.
    """
    with _writing(path) as target:
        while not _replace(target, content):
            pass
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # brings the renaming to the disk
        finally:
            os.close(folder)


def write_file(path: Path, content: bytes) -> None:
    """Write a result as `write_whole` does, or into a pipe or a device; raise OutputError."""
    if not is_special(path):
        return write_whole(path, content)
    with os_errors_as(OutputError, f"cannot write {path}"):
        path.write_bytes(content)
    return None


def is_special(path: Path) -> bool:
    """Whether it is a pipe or a device, as /dev/stdout may be."""
    return path.exists() and not (path.is_file() or path.is_dir())


def require_page(path: Path) -> None:
    """Raise OutputError unless a file's name is that of a page."""
    if path.suffix.lower() not in (".html", ".htm") and not is_special(path):
        raise OutputError(f"a report is a page of HTML, got {path}; name it {path.stem}.html")


@contextlib.contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Give the name of a folder to make, which then takes the place of `path`.

    That takes two steps: if the process is killed between them, the earlier folder is left under a
    hidden name beside `path`. An OutputError leaves what was there before.
    """
    with (
        _writing(path) as target,
        tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as folder,
    ):
        made, before = Path(folder) / "made", Path(folder) / "before"
        yield made
        try:
            if target.exists():
                target.rename(before)
            made.rename(target)
        except BaseException:
            if before.exists() and not target.exists():
                before.rename(target)
            raise


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """Give the file or folder that a link leads to; raise OutputError for an OSError."""
    target = path.resolve()
    hint = "; make room there, or name another place"
    with os_errors_as(OutputError, f"cannot write {path}", hint), cleaning_up():
        yield target


def _replace(target: Path, content: bytes) -> bool:
    """Return False if another writer, which cannot know that this one lives, removed its file."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            part.replace(target)
        except FileNotFoundError:
            if not target.parent.exists():
                raise
            return False
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    left = rf"\.{re.escape(target.name)}\.[0-9a-f]+\.part"
    with contextlib.suppress(OSError):
        for path in target.parent.iterdir():
            if re.fullmatch(left, path.name):
                path.unlink(missing_ok=True)
    return True


def json_text(result: object) -> str:
    """Return everything about a result as the text of a JSON file."""
    return json.dumps(to_json(result), indent=2, allow_nan=False) + "\n"


def to_json(result: object) -> dict[str, Any]:
    """Return a result as JSON values by its fields and properties; its text is the verdict."""
    return {"schema": SCHEMA, "verdict": str(result), **json_values(result)}


def json_values(value: Any) -> Any:
    """Return evidence as JSON values: null for nan and inf, no fields that a `repr` leaves out."""
    match value:
        case object(to_json=own) | object(_asdict=own):
            return json_values(own())
        case float() if not math.isfinite(value):
            return None
        case np.ndarray() | np.generic():
            return json_values(value.tolist())
        case Path():
            return str(value)
        case dict():
            return {str(key): json_values(item) for key, item in value.items()}
        case list() | tuple():
            return [json_values(item) for item in value]
    if dataclasses.is_dataclass(value):
        names = [name for name, item in vars(type(value)).items() if isinstance(item, property)]
        names += [field.name for field in dataclasses.fields(value) if field.repr]
        return {name: json_values(getattr(value, name)) for name in names}
    return value
