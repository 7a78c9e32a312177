"""Files that are whole or not there, whenever the process is killed."""

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from parity.contract.errors import OutputError, os_errors_as
from parity.contract.interrupts import cleaning_up


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, or replace it, so that at any instant the old or the new one is there.

    The bytes go to a temporary file in the same folder, from there to the disk, and then under
    their name. A killed writer leaves its temporary file, and the next writer removes it.

    Raises:
        OutputError: it cannot be written; names it. What was there is untouched, unless only the
            folder could not be brought to the disk.
    """
    with _writing(path) as target:
        while not _replace(target, content):
            pass
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # brings the renaming to the disk
        finally:
            os.close(folder)


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
    """Return False if another writer has removed this one's temporary file: try again.

    One that has finished cannot know whether another is alive or was killed, and removes the files
    of all: no harm, since whoever finds its own removed writes it again.
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
    left = rf"\.{re.escape(target.name)}\.[0-9a-f]+\.part"
    with contextlib.suppress(OSError):
        for path in target.parent.iterdir():
            if re.fullmatch(left, path.name):
                path.unlink(missing_ok=True)
    return True
