"""Files that are whole or not there, whenever the process is killed."""

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from parity.contract.errors import OutputError
from parity.contract.interrupts import cleaning_up


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, or replace it, so that at any instant the old or the new one is there.

    The bytes go to a temporary file in the same folder, from there to the disk, and then under
    their name. A killed writer leaves its temporary file, and the next writer removes it.

    Raises:
        OutputError: it cannot be written; names it. What was there before is untouched, unless
            only the folder could not be brought to the disk: then the new one is there.
    """
    target = path.resolve()  # of a link, the file that it leads to
    try:
        with cleaning_up():
            while not _replace(target, content):
                pass
        _sync_folder(target.parent)
    except OSError as error:
        raise _cannot_write(path, error) from None


@contextlib.contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Give the name of a folder to make, which then takes the place of `path`.

    A folder cannot be replaced in one step, as a file can: if the process is killed between the two
    steps, the earlier one is left under a hidden name beside `path`.

    Raises:
        OutputError: it cannot be written; names it. What was there before is untouched.
    """
    target = path.resolve()
    try:
        with cleaning_up(), tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as folder:
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
    except OSError as error:
        raise _cannot_write(path, error) from None


def _replace(target: Path, content: bytes) -> bool:
    """Return False if another writer has removed this one's temporary file: try again.

    Two writers must not share a temporary file, so its name is random. One that has finished
    cannot know whether another is alive or was killed, and removes the files of all: no harm, since
    whoever finds its own removed writes it again, and each time one writer has finished.
    """
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except FileNotFoundError:
        if not target.parent.exists():
            raise
        return False
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    left = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]+\.part")
    with contextlib.suppress(OSError):
        for path in target.parent.iterdir():
            if left.fullmatch(path.name):
                path.unlink(missing_ok=True)
    return True


def _cannot_write(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or error
    return OutputError(f"cannot write {path}: {reason}; make room there, or name another place")


def _sync_folder(folder: Path) -> None:
    """Bring the renaming to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
