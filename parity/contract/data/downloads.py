"""What a download leaves behind: all four files of a data set, verified, or nothing."""

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from parity.contract.data.datasets import FILES, Source, how_to_get, read_files
from parity.contract.errors import DataError
from parity.contract.interrupts import cleaning_up


def download_files(
    source: Source, directory: Path, fetch: Callable[[Path], dict[str, Path]]
) -> dict[str, Path]:
    """Download a data set's files to `directory`/FOLDER/raw, where torchvision keeps them too.

    `fetch` downloads them to the folder it is given and returns where each lies, or raises OSError.
    """
    raw = directory / source.folder / "raw"
    try:
        with staging(directory) as folder, quiet_in_a_pipe():
            files = fetch(folder)
            read_files(source, files)
            staged = folder / "raw"
            staged.mkdir()
            for file in FILES:
                files[file].replace(staged / f"{file}.gz")
            raw.parent.mkdir(parents=True, exist_ok=True)
            try:
                staged.rename(raw)  # in one step: a process killed in it leaves all or none
            except OSError:  # it is there: something else, or the same from another process
                for path in staged.iterdir():
                    path.replace(raw / path.name)
    except (OSError, DataError) as error:
        why = "the server sent something else" if isinstance(error, DataError) else error
        raise DataError(
            f"{source.name} is not in {directory}, and the download failed: {why};"
            f" {how_to_get(source, directory)}; or use --dataset digits, which needs no network"
        ) from None
    return {file: raw / f"{file}.gz" for file in FILES}


@contextlib.contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """Give a temporary folder inside `directory`; if the block fails, nothing of either is left."""
    created = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    with cleaning_up():
        try:
            with tempfile.TemporaryDirectory(prefix=".incoming-", dir=directory) as folder:
                yield Path(folder)
        except BaseException:
            for path in created:
                with contextlib.suppress(OSError):
                    path.rmdir()
            raise


@contextlib.contextmanager
def quiet_in_a_pipe() -> Iterator[None]:
    """Keep a library's progress off standard output, and off standard error unless it is seen."""
    screen = sys.stderr if sys.stderr.isatty() else io.StringIO()
    with contextlib.redirect_stderr(screen), contextlib.redirect_stdout(screen):
        yield
