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
        OutputError: it cannot be written; names it. What was there before is untouched, unless the
            folder alone could not be brought to the disk: then the new one stands.
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

    A folder cannot be replaced in one step, as a file can: if the process is killed between the two
    that it takes, the earlier one is left under a hidden name beside `path`.

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
    """Remove the temporary files of writers that live no more."""
    prefix, suffix = f".{target.name}.", ".part"
    with contextlib.suppress(OSError):
        for path in target.parent.iterdir():
            writer = path.name.removeprefix(prefix).removesuffix(suffix)
            if path.name == f"{prefix}{writer}{suffix}" and not _lives(writer):
                path.unlink(missing_ok=True)


def _lives(process: str) -> bool:
    """Whether a process of that number is there, other than this one."""
    if not process.isdecimal() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
