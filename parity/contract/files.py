"""Files that are whole or not there, whenever the process is killed."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from parity.contract.errors import OutputError
from parity.contract.interrupts import cleaning_up


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, or replace it, so that at any instant the old or the new one stands there.

    The bytes go to a temporary file in the same folder, from there to the disk, and then under
    their name. What a killed writer has left of such files is removed by the next.

    Raises:
        OutputError: it cannot be written; names it. What was there before is untouched.
    """
    target = path.resolve()  # where a link leads: the link stays
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with cleaning_up():
            try:
                _write_to_disk(part, content)
                part.replace(target)
            except BaseException:
                with contextlib.suppress(OSError):
                    part.unlink()
                raise
        _sync_folder(target.parent)
    except OSError as error:
        raise _cannot_write(path, error) from None
    _remove_stale(target)


@contextlib.contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Give the name of a folder to make, which then takes the place of `path`.

    Raises:
        OutputError: it cannot be written; names it. What was there before is untouched.
    """
    target = path.resolve()
    try:
        with cleaning_up(), tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as folder:
            made, before = Path(folder) / "made", Path(folder) / "before"
            yield made
            if target.exists():
                target.rename(before)
            try:
                made.rename(target)
            except OSError:
                if before.exists():
                    before.rename(target)
                raise
    except OSError as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or error
    return OutputError(f"cannot write {path}: {reason}; make room there, or name another place")


def _write_to_disk(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Bring the renaming to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(target: Path) -> None:
    """Remove the temporary files of killed writers; a live one would notice at its renaming."""
    prefix, suffix = f".{target.name}.", ".part"
    with contextlib.suppress(OSError):
        for path in target.parent.iterdir():
            if path.name.startswith(prefix) and path.name.endswith(suffix):
                path.unlink(missing_ok=True)
