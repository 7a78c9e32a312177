"""Each mistake of `mistakes` is answered by one line that says what helps, and leaves nothing."""

import gzip
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parity import __main__ as parity_program
from parity.contract.backend import Backend
from parity.contract.data.datasets import FILES
from parity.contract.run.checkpoint import CHECKPOINT_FILE, write_checkpoint
from tests.checkpoints import checkpoint
from tests.commands.mistakes import OF_PARITY, OF_THE_TWINS
from tests.conftest import idx_bytes
from tests.contract.cli.test_programs import run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    for name in ("run", "empty", "part", "damaged"):
        (folder / name).mkdir()
    (folder / "run" / ".lock").touch()
    for path in (folder / "cnn.safetensors", folder / "run" / CHECKPOINT_FILE):
        write_checkpoint(path, checkpoint())
    (folder / "junk.safetensors").write_bytes(b"junk" * 100)
    (folder / "text.txt").write_text("a text")
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(folder / "seven.png")
    images = gzip.compress(idx_bytes(np.zeros((2, 28, 28))))
    (folder / "part" / f"{FILES[0]}.gz").write_bytes(images)
    for file in FILES:
        (folder / "damaged" / file).write_bytes(b"\0\0")
    for name, code in {
        "nothing": "other_things = 1",
        "number": "pair = 7",
        "broken": "def pair(:",
        "raises": "raise RuntimeError('not today')",
    }.items():
        (folder / f"{name}.py").write_text(code)
    return folder


def paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


@pytest.fixture
def _there(made: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> Iterator[None]:
    """Work in the folder, and leave it as it was."""
    monkeypatch.chdir(made)
    before = paths(made)
    yield
    after = paths(made)
    for path in set(after) - set(before):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert after == before


def one_line(program: str, word: str, capsys: pytest.CaptureFixture[str]) -> bool:
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"{program}: error: ")
    assert word in err
    return len(err) < 600


def name(mistake: tuple[list[str], str]) -> str:
    return " ".join(mistake[0]) or "nothing"


@pytest.mark.usefixtures("_there")
@pytest.mark.parametrize("mistake", OF_THE_TWINS, ids=name)
def test_of_the_twins(
    mistake: tuple[list[str], str], backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, word = mistake
    assert run(backend, *arguments) == 2
    assert one_line(backend.__name__, word, capsys)


@pytest.mark.usefixtures("_there")
@pytest.mark.parametrize("mistake", OF_PARITY, ids=name)
def test_of_parity(
    mistake: tuple[list[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, word = mistake
    monkeypatch.setattr(parity_program, "exit_on_interrupt", lambda: None)
    monkeypatch.setattr(parity_program, "plain_convolutions", lambda: None)
    monkeypatch.setattr(sys, "argv", ["parity", *arguments])
    assert parity_program.main() == 2
    assert one_line("parity", word, capsys)
