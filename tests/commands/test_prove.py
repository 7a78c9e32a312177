"""`parity prove`: what it prints, writes, refuses and exits with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.test_parity import run_parity
from tests.pairs import sample

FILE = str(Path(sample.__file__))


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("two_outputs", 2, "PyTorch returns 2 arrays and JAX 1"),
        ("other_shapes", 2, "output 0 is (2, 4) in PyTorch and (2, 3) in JAX"),
        ("needs_arguments", 2, "the PyTorch side fails: TypeError"),
        ("raises_in_jax", 2, "the JAX side fails: KeyError: 'no such head'"),
        ("called_more_often", 2, "fc is called 3 times in PyTorch and 2 times in JAX"),
        ("dropout_stays", 2, "dropout at"),
        ("random_numbers", 3, "two results for the same inputs"),
        ("no_float64", 2, "the PyTorch side fails"),
        ("linen_alone", 2, "jax=(module, variables)"),
        ("strings", 2, "give arrays of numbers"),
        ("loss_missing", 2, "an optimizer needs a loss"),
        ("nothing", 2, "has no 'nothing'"),
        ("not_a_pair", 2, "is int, no Pair"),
        ("returns_none", 2, "returns NoneType, no Pair"),
    ],
)
def test_a_pair_that_cannot_be_proved_is_refused_by_one_line(
    name: str,
    status: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    written = tmp_path / "proof.json"
    assert run_parity(monkeypatch, "prove", f"{FILE}:{name}", "--json", str(written)) == status
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not written.exists()


@pytest.mark.parametrize("text", ["def pair(:\n", "import nowhere\n", "1 / 0\n"])
def test_a_file_that_does_not_import_is_refused_and_shown_with_debug(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "port.py"
    file.write_text(text)
    assert run_parity(monkeypatch, "prove", str(file)) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run_parity(monkeypatch, "prove", str(file), "--debug") == 2
    assert "port.py" in capsys.readouterr().err
    assert "port" not in sys.modules


def test_a_missing_file_and_a_wrong_map_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run_parity(monkeypatch, "prove", str(tmp_path / "nowhere.py")) == 2
    assert "is no file" in capsys.readouterr().err
    rows = tmp_path / "map.toml"
    rows.write_text("[[row]]\ntorch = 1\n")
    assert run_parity(monkeypatch, "prove", f"{FILE}:right", "--map", str(rows)) == 2
    assert "is no map" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["right", "right_pair"])
def test_what_is_the_same_exits_with_0_and_writes_what_it_shows(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written = tmp_path / "proof.json"
    assert run_parity(monkeypatch, "prove", f"{FILE}:{name}", "--json", str(written)) == 0
    shown = capsys.readouterr().out.splitlines()
    found = json.loads(written.read_text())
    assert shown[-1] == found["verdict"]
    assert found["same"] is True
    assert found["differences"] == []


PORT = """
from torch import nn
from flax import nnx
import jax, numpy as np
import parity

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 7), nn.Linear(7, 3)
    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))

class Port(nnx.Module):
    def __init__(self, rngs):
        self.dense1, self.dense2 = nnx.Linear(5, 7, rngs=rngs), nnx.Linear(7, 3, rngs=rngs)
    def __call__(self, x):
        return self.dense2(jax.nn.gelu(self.dense1(x)))

def pair():
    x = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    return parity.Pair(torch=Net(), jax=Port(nnx.Rngs(0)), inputs=(x,))
"""


def test_a_difference_is_located_and_named_and_may_be_accepted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, written, rows = (tmp_path / name for name in ("port.py", "proof.json", "map.toml"))
    file.write_text(PORT)
    before = file.read_bytes()
    options = ["--json", str(written), "--save-map", str(rows), "--show-map"]
    assert run_parity(monkeypatch, "prove", str(file), *options) == 1
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    (found,) = json.loads(written.read_text())["differences"]
    place = {"stage": "forward", "kind": "between", "torch": ["fc1", "fc2"]}
    place |= {"jax": ["dense1", "dense2"], "cause": "gelu-tanh", "also": []}
    assert place.items() <= found.items()
    assert "approximate=False" in found["fix"]
    assert "port.py" in found["torch_source"]
    assert "port.py" in found["jax_source"]
    assert file.read_bytes() == before

    accept = ["--accept", "gelu-tanh@fc*", "--map", str(rows)]
    assert run_parity(monkeypatch, "prove", str(file), *accept) == 0
    assert "1 accepted difference" in capsys.readouterr().out.splitlines()[-1]
    assert run_parity(monkeypatch, "prove", str(file), "--accept", "gelu-tanh@other") == 1


def test_a_strangers_test_shows_what_the_command_prints(tmp_path: Path) -> None:
    (tmp_path / "port.py").write_text(PORT)
    test = "import parity, port\ndef test_port():\n    assert parity.prove(port.pair())\n"
    (tmp_path / "test_port.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_port.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "cause: gelu-tanh" in ran.stdout
    assert "different: 1 difference, between fc1 and fc2" in ran.stdout
