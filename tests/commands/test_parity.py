"""The command line `parity`: what it prints, writes and exits with."""

import errno
import json
import os
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import parity
from parity import Verdict
from parity import __main__ as parity_main
from parity.subjects.faults import Edit, Fault
from parity.subjects.subject import Subject


def run_parity(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["parity", *argv])
    monkeypatch.setattr(parity_main, "exit_on_interrupt", lambda: None)
    return parity_main.main()


def test_parity_check_exits_0_and_writes_what_it_shows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report, page = tmp_path / "report.json", tmp_path / "report.html"
    options = ["--dataset", "digits", "--a", "numpy", "--b", "torch:eager"]
    files = ["--json", str(report), "--report", str(page)]
    assert run_parity(monkeypatch, "check", *options, *files) == 0
    shown = capsys.readouterr().out.splitlines()
    written = json.loads(report.read_text())
    assert shown[0] == written["verdict"]
    assert shown[1:3] == ["worst error / its bound", shown[2]]
    stages = len(written["stages"])
    assert [line.split()[0] for line in shown[3 : 3 + stages]] == list(written["stages"])
    judged = " ".join(" ".join(shown[3 + stages :]).split())
    assert all(said in judged for said in written["covered"].values())
    assert max(map(len, shown[1:])) <= 80
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert shown[0] in page.read_text(encoding="utf-8")
    assert sorted(tmp_path.iterdir()) == [page, report]


def test_parity_check_exits_1_where_subjects_disagree(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchcnn.steps

    right = torchcnn.steps.cross_entropy
    monkeypatch.setattr(torchcnn.steps, "cross_entropy", lambda z, y: 1.001 * right(z, y))
    assert run_parity(monkeypatch, "check", "--dataset", "digits", "--device", "cpu") == 1
    assert "torch:eager first differs at stage loss: it is " in capsys.readouterr().out


def test_parity_train_prints_both_trainings_and_exits_0(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report, page = tmp_path / "report.json", tmp_path / "report.html"
    options = ["--dataset", "digits", "--steps", "2", "--device", "cpu"]
    files = ["--json", str(report), "--report", str(page)]
    assert run_parity(monkeypatch, "train", *options, *files) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["torch:eager", "jax:jit"]
    assert shown[-1] == "same algorithm; float32 drift is rounding"
    assert json.loads(report.read_text())["verdict"] == shown[-1]
    assert shown[-1] in page.read_text(encoding="utf-8")


def test_parity_doctor_exits_0_and_writes_what_it_shows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torchcnn.device._compiler", lambda: None)
    layers = [subject for subject in Subject.all() if subject.kernel == "layers"]
    monkeypatch.setattr(Subject, "all", lambda: layers)
    report = tmp_path / "report.json"
    options = ["--runs", "2", "--device", "cpu", "--json", str(report)]
    assert run_parity(monkeypatch, "doctor", *options) == 0
    shown = capsys.readouterr().out
    written = json.loads(report.read_text())
    assert (written["schema"], written["healthy"]) == (2, True)
    assert shown.endswith(written["verdict"] + "\n")
    assert all(f"\n{name} " in shown for name in written["subjects"])
    assert all(f"\n  {name} " in shown for name in written["environment"]["jax"])


def test_parity_doctor_exits_2_where_there_is_nothing_to_repeat(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_parity(monkeypatch, "doctor", "--runs", "1") == 2
    error = capsys.readouterr().err
    assert error == "parity: error: runs must be an integer of at least 2, got 1\n"


def test_parity_selftest_exits_0_and_writes_what_it_shows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    subjects = ["--a", "torch:eager", "--b", "torch:eager", "--device", "cpu"]
    options = [*subjects, "--only", "correct", "--cases", "1", "--json", str(report)]
    assert run_parity(monkeypatch, "selftest", *options) == 0
    written = json.loads(report.read_text())
    assert (written["cases"], written["alarms"], written["trials"]) == (2, [], [])
    assert capsys.readouterr().out.splitlines()[-1] == written["verdict"]


@pytest.mark.wrong_types
def test_parity_selftest_exits_1_where_a_mistake_is_missed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = Edit(module="model", old="F.relu(conv1)", new="conv1.relu()")
    fault = Fault(name="none at all", stage="relu", edits={"torch": (same,)}, only="a test")
    monkeypatch.setattr("parity.judge.selftest.catalogue", lambda: [fault])
    options = ["--b", "torch:eager", "--device", "cpu", "--only", "mistakes"]
    assert run_parity(monkeypatch, "selftest", *options) == 1
    assert "0 located, 0 caught elsewhere, 2 missed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        (["--cases", "0"], "cases must be an integer of at least 1"),
        (["--a", "numpy"], "mistakes are planted into a backend, not into numpy"),
        (["--only", "some"], "mistakes"),
        (["--json", "tests"], "give --json another file"),
    ],
)
def test_parity_selftest_exits_2_on_bad_input(
    options: list[str],
    mend: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run_parity(monkeypatch, "selftest", *options) == 2
    error = capsys.readouterr().err
    assert mend in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        (["--a", "tensorflow:jit"], "torch:eager, torch:eager:fused, torch:jit, torch:jit:fused"),
        (["--json", "pyproject.toml/report.json"], "give --json another file"),
        (["--json", "tests"], "give --json another file"),
        (["--report", "pyproject.toml/report.html"], "give --report another file"),
        (["--report", "nowhere/report.html"], "No such file or directory; give --report another"),
        (["--report", "tests"], "Is a directory; give --report another file"),
        (["--report", "page.pdf"], "a report is a page of HTML, got page.pdf; name it page.html"),
        (["--report", "no.html", "--json", "no.html"], "both name no.html"),
        (["--seed", "-1"], "seed must be an integer of at least 0"),
    ],
)
def test_parity_exits_2_on_bad_input(
    options: list[str],
    mend: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run_parity(monkeypatch, "check", "--dataset", "digits", *options) == 2
    error = capsys.readouterr().err
    assert mend in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize("option", ["--json", "--report"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_computed(
    command: str,
    option: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    computed = []
    monkeypatch.setattr("parity.check", lambda **options: computed.append(options))
    monkeypatch.setattr("parity.train", lambda **options: computed.append(options))

    def refused(dir: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    options = ["--dataset", "digits", option, str(tmp_path / "report")]
    assert run_parity(monkeypatch, command, *options) == 2
    assert (computed, list(tmp_path.iterdir())) == ([], [])
    assert f"Permission denied; give {option} another file" in capsys.readouterr().err


@pytest.fixture(scope="module")
def verdict() -> Verdict:
    return parity.check(a="numpy", b="numpy", dataset="digits")


@pytest.fixture
def judged(verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `parity check` give a verdict that has been computed already."""
    monkeypatch.setattr("parity.check", lambda **_: verdict)


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize("option", ["--json", "--report"])
def test_a_file_is_written_whole_or_not_at_all(
    option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_text("an earlier one")

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    assert run_parity(monkeypatch, "check", option, str(file)) == 2
    assert f"cannot write {file}: No space left on device; make room" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an earlier one"]


@pytest.mark.usefixtures("judged")
def test_a_link_stays_a_link_and_a_pipe_a_pipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to("file")
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    files = ["--json", str(link), "--report", str(pipe)]
    assert run_parity(monkeypatch, "check", *files) == 0
    reader.join()
    assert link.is_symlink()
    assert json.loads((tmp_path / "file").read_text())["agrees"] is True
    assert pipe.is_fifo()
    assert read[0].startswith("<!doctype html>")
