"""Checkpoints go from format to format and come back, to the bit."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchcnn
from parity.commands.convert import convert
from parity.contract.errors import OutputError
from parity.contract.recipe import DType
from parity.contract.run.checkpoint import read_checkpoint, write_checkpoint
from tests.checkpoints import assert_same, checkpoint, refused
from tests.commands.test_parity import run_parity

CHAINS = [
    ["a.safetensors", "b.pt", "c", "d.safetensors"],
    ["a.safetensors", "b", "c.pt", "d.safetensors"],
    ["a.safetensors", "b.safetensors"],
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("chain", CHAINS, ids=" → ".join)
def test_a_checkpoint_that_went_round_is_the_same_file(
    chain: list[str], dtype: DType, tmp_path: Path
) -> None:
    first, *others = (tmp_path / name for name in chain)
    write_checkpoint(first, checkpoint(dtype=dtype))
    source = first
    for target in others:
        assert_same(convert(source, target), checkpoint(dtype=dtype))
        source = target
    assert source.read_bytes() == first.read_bytes()


def test_the_folder_of_a_run_stands_for_its_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_checkpoint(run / "checkpoint.safetensors", checkpoint())
    assert_same(convert(run, tmp_path / "model.pt"), checkpoint())


@pytest.mark.parametrize("name", ["b.pt", "b.safetensors", "b"])
def test_a_target_that_is_there_is_kept_unless_asked_for(name: str, tmp_path: Path) -> None:
    source, target = tmp_path / "a.safetensors", tmp_path / name
    write_checkpoint(source, checkpoint(1))
    convert(source, target)
    write_checkpoint(source, checkpoint(2))
    with pytest.raises(OutputError, match=f"{target} is there already.*--overwrite"):
        convert(source, target)
    assert_same(convert(target, tmp_path / "back.safetensors"), checkpoint(1))
    convert(source, target, overwrite=True)
    assert_same(convert(target, tmp_path / "again.safetensors"), checkpoint(2))


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    write_checkpoint(tmp_path / "a.safetensors", checkpoint())
    with pytest.raises(OutputError, match="is not replaced"):
        convert(tmp_path / "a.safetensors", tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "letter").read_text() == "dear"


def test_a_source_that_is_refused_leaves_no_target(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"not a checkpoint")
    for target in ("b", "b.pt"):
        with refused("a.safetensors is not a checkpoint of this network"):
            convert(tmp_path / "a.safetensors", tmp_path / target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_command_says_what_it_has_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the tutorial's own file, with the defaults of what it lacks."""
    monkeypatch.chdir(tmp_path)
    model = torchcnn.CNN(dtype=torch.float32).to_empty(device="cpu")
    weights = {name: torch.rand_like(value) for name, value in model.state_dict().items()}
    torch.save(weights, "cnn.pt")
    assert run_parity(monkeypatch, "convert", "cnn.pt", "cnn.safetensors") == 0
    assert capsys.readouterr().out == (
        "cnn.pt → cnn.safetensors: mnist, float32, epoch 1, 0 batches of it done, 0 steps made\n"
    )
    for name, value in read_checkpoint(Path("cnn.safetensors")).state.params.items():
        assert value.tobytes() == weights[name].numpy().tobytes()


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (["a.safetensors"], "Missing from parity convert: TARGET Checkpoint to write. (required);"),
        (["a.h5", "b.pt"], "a.h5 is not there"),
        (["a.safetensors", "b.h5"], "b.h5 is of no known format"),
        (["a.safetensors", "b.pt"], "a.safetensors is not there"),
        (["a.pt", "b.safetensors"], "a.pt is not there"),
        (["a", "b.safetensors"], "a is not there"),
        (["good.safetensors", "good.safetensors"], "is there already"),
        (["good.safetensors", "gone/b.safetensors"], "cannot write gone/b.safetensors: No such"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str],
    mend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(Path("good.safetensors"), checkpoint())
    assert run_parity(monkeypatch, "convert", *arguments) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert mend in captured.err


def test_a_damaged_folder_of_orbax_is_one_line_and_nothing_of_its_threads(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a.safetensors", checkpoint())
    convert(tmp_path / "a.safetensors", tmp_path / "model")
    (tmp_path / "model" / "state" / "manifest.ocdbt").unlink()
    command = [sys.executable, "-m", "parity", "convert", tmp_path / "model", tmp_path / "b.pt"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert "model is not a checkpoint of this network" in run.stderr
