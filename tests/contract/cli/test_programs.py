"""The command lines `torchcnn` and `jaxcnn`: what they print, write and exit with."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import jaxcnn
import torchcnn
from parity.contract.backend import Backend
from parity.contract.cli import programs as cli
from parity.contract.data.datasets import FILES
from parity.contract.recipe import Recipe
from tests.conftest import Write

EPOCH = re.compile(r"Epoch (\d+), Loss: (\d+\.\d{3}), test \d+\.\d{2}%, \d+\.\d s")
TRAIN = ["train", "--dataset", "digits", "--limit", "128", "--epochs", "2", "--device", "cpu"]


def run(backend: Backend, *argv: str) -> int:
    return cli.main(backend, "A description.", argv)


def test_train_prints_the_data_set_and_a_line_an_epoch(
    backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(backend, *TRAIN) == 0
    header, *epochs = capsys.readouterr().out.splitlines()
    assert header.startswith(f"{backend.__name__}: digits, cpu, ")
    assert [EPOCH.sub(r"\1", line) for line in epochs] == ["1", "2"]


def test_quiet_prints_nothing_and_out_gets_the_history(
    backend: Backend, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(backend, *TRAIN, "--quiet", "--out", str(tmp_path / "run")) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert (recipe["dataset"], recipe["limit"]) == ("digits", 128)
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_summary_prints_27210_parameters(
    backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(backend, "summary") == 0
    assert capsys.readouterr().out.endswith("160 + 27,050 = 27,210 parameters\n")


def test_evaluate_prints_the_untrained_networks_loss(
    backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(backend, "evaluate", "--dataset", "digits", "--seed", "1") == 0
    [loss] = re.findall(r"untrained: loss (\d\.\d{4})", capsys.readouterr().out)
    expected = backend.evaluate(Recipe(dataset="digits", seed=1)).loss
    assert float(loss) == pytest.approx(expected, abs=5e-5)


BAD = {
    "unknown data set": (["--dataset", "cifar"], "mnist', 'fashion_mnist', 'kmnist', 'digits'"),
    "unknown option": (["--optimizer", "sgd"], "--optimizer"),
    "not a number": (["--epochs", "ten"], "--epochs"),
    "batch size 0": (["--batch-size", "0"], "batch_size must be an integer of at least 1"),
    "epochs 0": (["--epochs", "0"], "epochs must be an integer of at least 1"),
    "negative lr": (["--lr", "-0.1"], "lr must be a finite number above 0"),
    "lr NaN": (["--lr", "nan"], "lr must be a finite number above 0"),
    "limit beyond the data": (["--limit", "1438"], "--limit 1437 or less"),
    "no GPU": (["--device", "cuda"], "use --device cpu"),
    "no TPU": (["--device", "tpu"], "use --device cpu"),
    "out is a file": (["--out", "pyproject.toml/run"], "give --out another folder"),
}


@pytest.mark.parametrize(("options", "mend"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_that_names_the_mend_and_exit_2(
    backend: Backend,
    options: list[str],
    mend: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = [] if "--out" in options else ["--out", str(tmp_path / "run")]
    assert run(backend, "train", "--dataset", "digits", *options, "--quiet", *out) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"{backend.__name__}: error: ")
    assert captured.err.count("\n") == 1
    assert mend in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_command_is_exit_2(backend: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(backend) == 2
    assert "train" in capsys.readouterr().err


def test_debug_shows_where_an_error_was_raised(
    backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(backend, *TRAIN, "--limit", "9999", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_internal_error_does_not_look_like_a_verdict(
    backend: Backend, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parity.contract.cli.console.summary_lines", lambda layers: 1 / 0)
    assert run(backend, "summary") == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["--help"], ["train", "--help"], ["evaluate", "--help"], ["predict", "--help"]]
)
def test_both_backends_list_the_same_options(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    backends: tuple[Backend, ...] = (torchcnn, jaxcnn)
    for backend in backends:
        with pytest.raises(SystemExit) as end:
            run(backend, *command)
        assert not end.value.code
        texts.append(capsys.readouterr().out.replace(backend.__name__, "PROGRAM"))
    assert texts[0] == texts[1]
    assert ("--debug" if len(command) > 1 else "predict") in texts[0]


def interrupted(package: str, until: str) -> tuple[int, str]:
    """Send Ctrl-C to a training once it has printed a line that begins so; nothing for at once."""
    command = [sys.executable, "-m", package, "train", "--dataset", "digits", "--epochs", "9999"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        if until:
            while not process.stdout.readline().startswith(until):
                assert process.poll() is None
        else:
            time.sleep(1)  # the framework is being imported
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    return process.returncode, error


@pytest.mark.parametrize("until", ["", "torchcnn", "Epoch 2"])
def test_ctrl_c_ends_torchcnn_with_130_and_one_line(until: str) -> None:
    assert interrupted("torchcnn", until) == (130, "interrupted\n")


@pytest.mark.parametrize("until", ["", "jaxcnn", "Epoch 2"])
def test_ctrl_c_ends_jaxcnn_with_130_and_one_line(until: str) -> None:
    assert interrupted("jaxcnn", until) == (130, "interrupted\n")


def test_a_reader_that_leaves_is_not_a_verdict() -> None:
    command = f"{sys.executable} -m torchcnn train --dataset digits --epochs 50 | head -1"
    script = f"{command}; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (141, "")


def remove_all(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def truncate(folder: Path) -> None:
    path = folder / f"{FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:-50])


def rewrite(file: str, change: Callable[[bytearray], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / f"{file}.gz"
        content = bytearray(gzip.decompress(path.read_bytes()))
        change(content)
        path.write_bytes(gzip.compress(bytes(content)))

    return damage


def set_byte(place: int, value: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[place] = value

    return change


DAMAGE = {
    "empty folder": (remove_all, "--dataset digits, which needs no network"),
    "truncated gzip": (truncate, "truncated, damaged"),
    "wrong magic number": (rewrite(FILES[2], set_byte(3, 9)), "magic number"),
    "sizes that disagree": (rewrite(FILES[1], set_byte(7, 39)), "announces 39 values, expected 40"),
    "label 10": (rewrite(FILES[3], set_byte(8, 10)), "label 10 at position 0"),
    "flipped byte": (rewrite(FILES[0], lambda c: c.__setitem__(99, c[99] ^ 1)), "SHA-256 differs"),
    "missing file": (lambda folder: (folder / f"{FILES[3]}.gz").unlink(), f"not {FILES[3]}"),
}


@pytest.mark.parametrize(("damage", "mend"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_data_is_one_line_exit_2_and_nothing_written(
    backend: Backend,
    damage: Callable[[Path], None],
    mend: str,
    write_tiny: Write,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    no_network: None,
) -> None:
    folder = write_tiny(tmp_path / "data")
    damage(folder)
    before = sorted(tmp_path.rglob("*"))
    options = ["--data-dir", str(folder), "--out", str(tmp_path / "run"), "--quiet"]
    assert run(backend, "train", *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert mend in captured.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("coding", ["utf-8", "ascii"])
def test_a_usage_error_has_no_box_whatever_the_terminals_characters(coding: str) -> None:
    command = [sys.executable, "-m", "torchcnn", "train", "--epochs", "ten"]
    environment = {**os.environ, "PYTHONIOENCODING": coding, "PYTHONUTF8": "0"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.stderr == (
        "torchcnn: error: Error parsing --epochs: invalid literal for int() with base 10: 'ten';"
        " see torchcnn train --help\n"
    )
