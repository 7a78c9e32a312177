"""The benchmark on real processes."""

import json
from pathlib import Path

import pytest

from parity.__main__ import main
from parity.benchmark.bench import measure
from parity.contract.recipe import Recipe


@pytest.fixture
def two_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two rounds be enough: real processes take their time."""
    monkeypatch.setattr("parity.benchmark.bench._LEAST_ROUNDS", 2)


def test_real_processes_are_timed_and_their_losses_are_right(
    two_rounds: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file, report = tmp_path / "bench.json", tmp_path / "bench.html"
    options = "--dataset digits --limit 200 --rounds 2 --threads 1 --device cpu"
    arms = ["--phases", "epoch", "--arms", "tutorial", "torch:eager"]
    outputs = ["--json", str(file), "--report", str(report)]
    monkeypatch.setattr("sys.argv", ["parity", "bench", *options.split(), *arms, *outputs])
    status = main()
    shown = capfd.readouterr()
    assert status == (3 if "no verdict" in shown.out else 0)
    written = json.loads(file.read_text())
    assert written["command"].startswith("parity bench --dataset digits")
    assert written["environment"]["tutorial"]["threads within an operation"] == 1
    measured = written["timed"]["64"]
    assert list(measured) == ["tutorial", "torch:eager", "torch:eager again"]
    for arm in measured.values():
        assert arm["failed"] is None
        for found, by_tutorial in zip(arm["rounds"], measured["tutorial"]["rounds"], strict=True):
            assert min(found["product"], found["epoch"], found["first_step"]) > 0
            assert (found["forward"], found["step"], found["retraces"]) == (None, None, 0)
            assert found["loss"] == pytest.approx(by_tutorial["loss"], rel=1e-4)
            assert found["memory"] > 50e6
    assert "noise, epoch, batches of 64: torch:eager twice" in shown.out
    said = shown.err.splitlines()  # nothing else: no warning of a process
    assert said[0] == "losses by hand: 0 of 2"
    assert all(line.endswith(("0 of 2", "1 of 2")) for line in said)
    assert report.read_text().startswith("<!doctype html>")


BROKEN = """
import os
import signal

import torch.nn.functional as F

right = F.cross_entropy
F.cross_entropy = lambda *given, **named: 1.01 * right(*given, **named)
F.conv2d = lambda *given, **named: os.kill(os.getpid(), signal.SIGKILL)
"""
"""Both arms are PyTorch's, so that each process imports one framework; only one convolves."""


def test_a_real_arm_with_wrong_losses_or_that_is_killed_does_not_count_and_exits_1(
    two_rounds: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = "--b torch:eager --a torch:eager:fused --limit 8 --rounds 2 --phases forward"
    where = ["--dataset", "digits", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["parity", "bench", *options.split(), *where])
    assert main() == 1
    shown = capsys.readouterr().out
    wrong = (
        "does not count: torch:eager:fused, batches of 64: the loss of its step 1 on one batch is"
    )
    assert wrong in shown
    assert "torch:eager, batches of 64: its process was killed by signal 9" in shown


def test_an_arm_that_idles_a_fraction_takes_that_much_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fraction is large, so that a busy machine does not hide it."""
    monkeypatch.setattr("parity.benchmark.bench._WINDOW", 0.01)
    monkeypatch.setattr("parity.benchmark.bench._ENOUGH", 0.01)
    monkeypatch.setattr("parity.benchmark.bench.PRODUCT_SIZE", 256)
    recipe = Recipe(dataset="digits", limit=64)
    quick, slow = (measure("torch:eager", recipe, ("epoch",), idles)[2] for idles in (0.0, 9.0))
    assert slow["epoch"] > 4 * quick["epoch"]
    assert slow["product"] > 4 * quick["product"]
    assert slow["loss"] == quick["loss"]
