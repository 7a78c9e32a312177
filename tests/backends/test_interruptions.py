"""Preparations that are killed, or made twice at once, leave nothing that a later run believes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import jaxcnn
from parity.contract.data.datasets import FILES, Dataset, Source, find_files
from parity.contract.data.downloads import download_files
from tests.backends.test_data import assert_same
from tests.conftest import Write

LOAD = """
import hashlib, os, signal, sys, time
from dataclasses import replace
from pathlib import Path
from parity.contract.data import datasets
from parity.contract.data.images import read_idx

folder, meeting = Path(sys.argv[1]), Path(sys.argv[2])
sizes = replace(datasets.SOURCES["mnist"], train_size=40, test_size=20)
shapes = {{"images": (None, 28, 28), "labels": (None,)}}
paths = {{f: folder / f"{{f}}.gz" for f in datasets.FILES}}
arrays = {{f: read_idx(path, shape=shapes[f.split("-")[1]]) for f, path in paths.items()}}
digests = {{f: hashlib.sha256(array.data).hexdigest() for f, array in arrays.items()}}
datasets.SOURCES["mnist"] = replace(sizes, array_sha256=digests)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

rename = Path.rename

def meet(self, target):
    (meeting / str(os.getpid())).touch()
    while len(list(meeting.iterdir())) < 2:
        time.sleep(0.01)
    return rename(self, target)

{before}
import jaxcnn.data
jaxcnn.data.load_dataset("mnist", folder)
"""

KILLS = {
    "among the examples": (
        "from tensorflow_datasets.core.writer import Writer; Writer.finalize = die"
    ),
    "before the copy has its name": "Path.rename = die",
    "after it": "Path.rename = lambda *a: (rename(*a), die())",
}


def start(before: str, files: Path, meeting: Path) -> subprocess.Popen[str]:
    meeting.mkdir(exist_ok=True)
    command = [sys.executable, "-c", LOAD.format(before=before), str(files), str(meeting)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def files(tmp_path: Path, write_tiny: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_tiny(tmp_path / "files")


@pytest.mark.parametrize("before", KILLS.values(), ids=KILLS)
def test_a_preparation_that_is_killed_is_made_again(
    before: str, files: Path, tiny: Dataset, tmp_path: Path
) -> None:
    with start(before, files, tmp_path / "meeting") as process:
        _, error = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, error
    assert_same(jaxcnn.load_dataset("mnist", files), tiny)


def test_two_that_prepare_at_once_do_not_harm_each_other(
    files: Path, tiny: Dataset, tmp_path: Path
) -> None:
    """They meet where each has made its copy and neither has named it."""
    processes = [start("Path.rename = meet", files, tmp_path / "meeting") for _ in range(2)]
    for process in processes:
        with process:
            _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert len(list((tmp_path / "meeting").iterdir())) == 2
    assert len(list((tmp_path / "cache/cnn-parity").iterdir())) == 1
    assert_same(jaxcnn.load_dataset("mnist", files), tiny)


DOWNLOAD = """
import shutil
from parity.contract.data.downloads import download_files

def fetch(into):
    return {{f: Path(shutil.copy(folder / f"{{f}}.gz", into)) for f in datasets.FILES}}

moves = []

def dying(function):
    def move(*arguments):
        if len(moves) == {moves}:
            die()
        moves.append(arguments)
        return function(*arguments)
    return move

Path.rename, Path.replace = dying(Path.rename), dying(Path.replace)
download_files(datasets.SOURCES["mnist"], meeting / "data", fetch)
os._exit(0)
"""


@pytest.mark.parametrize("moves", range(6))
def test_a_download_that_is_killed_leaves_all_files_or_none(
    moves: int, files: Path, tiny_source: Source, tmp_path: Path
) -> None:
    """At each of the moves that it makes once it has them; there are five."""
    with start(DOWNLOAD.format(moves=moves), files, tmp_path / "meeting") as process:
        _, error = process.communicate(timeout=120)
    assert process.returncode == (-signal.SIGKILL if moves < 5 else 0), error
    found = find_files(tiny_source, tmp_path / "meeting" / "data")
    assert (found is None) == (moves < 5)


def test_files_that_lie_beside_the_downloaded_ones_stay(
    write_tiny: Write, tiny_source: Source, tmp_path: Path
) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "notes.txt").write_text("mine")

    def fetch(folder: Path) -> dict[str, Path]:
        return {file: write_tiny(folder) / f"{file}.gz" for file in FILES}

    kept = download_files(tiny_source, tmp_path / "data", fetch)
    assert {path.name for path in raw.iterdir()} == {"notes.txt"} | {f"{f}.gz" for f in FILES}
    assert find_files(tiny_source, tmp_path / "data") == kept
