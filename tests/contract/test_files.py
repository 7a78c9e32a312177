"""A file is the old one or the new one, whatever happens while it is written."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from parity.contract.errors import OutputError
from parity.contract.files import write_whole, writing_folder
from parity.contract.run.checkpoint import read_checkpoint, write_checkpoint
from tests.checkpoints import assert_same, checkpoint

OLD, NEW = checkpoint(seed=1), checkpoint(seed=2)

SAVE = """
import os, resource, signal, sys
from pathlib import Path
from parity.contract.run.checkpoint import write_checkpoint
from parity.contract.errors import OutputError
from tests.checkpoints import checkpoint

{before}
try:
    write_checkpoint(Path(sys.argv[1]), checkpoint(seed=2))
except OutputError as error:
    sys.exit(f"refused: {{error}}")
"""

DIE = """
def dying(function, when, wanted):
    calls = []
    def call(*args, **options):
        calls.append(args)
        if len(calls) == wanted and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **options)
        if len(calls) == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
"""


def save_in_a_process(path: Path, before: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SAVE.format(before=before), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def die(function: str, when: str, wanted: int = 1) -> str:
    return f"{DIE}\n{function} = dying({function}, {when!r}, {wanted})"


KILLS = {
    "before the temporary file": (die("Path.open", "before"), OLD),
    "before a byte of it": (die("Path.open", "after"), OLD),
    "in the middle of it": (
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))",
        OLD,
    ),
    "before it is on the disk": (die("os.fsync", "before"), OLD),
    "after it": (die("os.fsync", "after"), OLD),
    "before the renaming": (die("os.replace", "before"), OLD),
    "after it, before it is on the disk": (die("os.fsync", "before", wanted=2), NEW),
    "at the end": (die("os.fsync", "after", wanted=2), NEW),
}


@pytest.mark.parametrize(("before", "stands"), KILLS.values(), ids=KILLS)
def test_a_save_that_is_killed_leaves_the_old_or_the_new_one(
    before: str, stands: Any, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, OLD)
    assert save_in_a_process(path, before).returncode in (-signal.SIGKILL, -signal.SIGXFSZ)
    assert_same(read_checkpoint(path), stands)
    write_checkpoint(path, NEW)
    assert_same(read_checkpoint(path), NEW)
    assert list(tmp_path.iterdir()) == [path]


NOBODY = """
os.chmod(Path(sys.argv[1]).parent, 0o555)
if os.getuid() == 0:
    os.setuid(65534)
"""
FULL = "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"


@pytest.mark.parametrize(("before", "reason"), [(NOBODY, "Permission"), (FULL, "File too large")])
def test_a_folder_that_takes_no_file_is_an_error_that_names_it(before: str, reason: str) -> None:
    folder = Path(tempfile.mkdtemp())  # pytest's own is closed to others
    folder.chmod(0o755)
    path = folder / "checkpoint.safetensors"
    try:
        write_checkpoint(path, OLD)
        run = save_in_a_process(path, before)
        assert run.returncode == 1
        assert run.stderr.startswith(f"refused: cannot write {path}: {reason}")
        assert_same(read_checkpoint(path), OLD)
        assert list(folder.iterdir()) == [path]
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("function", "code"),
    [("os.fsync", errno.ENOSPC), ("os.fsync", errno.EIO), ("os.replace", errno.EXDEV)],
)
def test_a_step_that_fails_leaves_the_old_one_and_nothing_else(
    function: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, OLD)

    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(function, fail)
        with pytest.raises(OutputError, match=f"cannot write {path}: {os.strerror(code)}"):
            write_checkpoint(path, NEW)
    assert_same(read_checkpoint(path), OLD)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"{tmp_path}/gone/file: No such file"):
        write_whole(tmp_path / "gone" / "file", b"content")


def test_a_folder_that_vanishes_meanwhile_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(os, "fsync", lambda _: shutil.rmtree(folder, ignore_errors=True))
    with pytest.raises(OutputError, match=f"{folder}/file: No such file"):
        write_whole(folder / "file", b"content")


def test_a_folder_in_its_place_is_named_and_stays(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(OutputError, match=f"cannot write {tmp_path}/run: "):
        write_whole(tmp_path / "run", b"content")
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


@pytest.mark.parametrize("at", [1, 2])
def test_ctrl_c_between_the_renamings_of_a_folder_leaves_the_old_one(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "file").write_text("old")
    rename, calls = Path.rename, []

    def interrupt(self: Path, other: Path) -> Path:
        calls.append(other)
        moved = rename(self, other) if (len(calls), at) != (2, 2) else self
        if len(calls) == at:
            raise KeyboardInterrupt
        return moved

    def replace() -> None:
        with monkeypatch.context() as patch, writing_folder(target) as made:
            made.mkdir()
            patch.setattr(Path, "rename", interrupt)

    with pytest.raises(KeyboardInterrupt):
        replace()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (target / "file").read_text() == "old"


def test_ctrl_c_in_the_middle_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, b"new")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_it_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    events = []
    sync, replace = os.fsync, os.replace

    def recording_sync(descriptor: int) -> None:
        events.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        sync(descriptor)

    def recording_replace(source: Path, target: Path) -> None:
        events.append((Path(source).parent, Path(source).read_bytes(), Path(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recording_sync)
    monkeypatch.setattr(os, "replace", recording_replace)
    write_whole(path, b"content")
    assert events == [False, (tmp_path, b"content", path), True]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    link, file = tmp_path / "latest", tmp_path / "runs" / "file"
    link.symlink_to(file)
    write_whole(link, b"content")
    assert link.is_symlink()
    assert file.read_bytes() == b"content"


def test_its_permissions_are_a_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", b"content")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_temporary_files_of_other_files_stay(tmp_path: Path) -> None:
    stale, other = tmp_path / ".file.99999.part", tmp_path / ".other.99999.part"
    for path in (stale, other):
        path.write_bytes(b"half")
    write_whole(tmp_path / "file", b"content")
    assert set(tmp_path.iterdir()) == {tmp_path / "file", other}
