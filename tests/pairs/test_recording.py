"""PyTorch's side recorded here and judged there: the same proof, without the model's code."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from parity.pairs.judging import prove
from parity.pairs.pair import Pair, PairError, against
from parity.pairs.torch_side.recorder import recorded
from parity.pairs.torch_side.recording import RecordingError, read_recording, write_recording
from tests.commands.test_parity import run_parity
from tests.pairs import sample
from tests.pairs.miniatures import MINIATURES

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ["vit-transposed", "stopped-not", "library-attention"])
def test_a_recording_is_proved_as_the_model_is(name: str, tmp_path: Path) -> None:
    pair = replace(MINIATURES[name].build(0), loss=None, optimizer=None)
    write_recording(tmp_path / "torch.npz", recorded(pair))
    alone = replace(pair, torch=None, inputs=())
    proof, live = prove(against(alone, tmp_path / "torch.npz")), prove(pair)
    assert proof.summary == live.summary
    for ours, theirs in zip(proof.differences, live.differences, strict=True):
        said = re.sub(r" \([^()]*:\d+\)", "", theirs.explanation)  # the line of a detach
        expected = replace(theirs, size=0, rounding=0, explanation=said)
        assert replace(ours, size=0, rounding=0) == expected


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: object, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


class Straight(nn.Module):
    """Has a derivative of its own, which its operations do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Straight.apply(x * self.scale)


def test_a_derivative_that_no_recording_holds_is_not_judged() -> None:
    recording = recorded(Pair(torch=Straight(), inputs=(X,)))
    assert not recording.differentiable

    def port(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return jnp.sign(x * params["scale"])

    pair = Pair(torch=recording, jax=(port, {"scale": jnp.ones(3)}), inputs=recording.inputs)
    assert "the recording has other ones" in prove(pair).summary["gradients"]


class Positions(nn.Module):
    """Has an integer buffer, a constant in its code, and a table kept from its first call."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.register_buffer("ids", torch.arange(4))
        self.empty = nn.Parameter(torch.zeros(0))
        self.table: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.arange(3) + 1
        return (x + self.embedding(self.get_buffer("ids"))) * torch.tensor([1, 2, 3]) * self.table


def test_integers_constants_and_what_a_model_keeps_are_recorded_in_each_run() -> None:
    def port(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return (x + params["table"][jnp.arange(4)]) * jnp.array([1, 4, 9])

    pair = Pair(torch=Positions(), jax=(port, {"table": jnp.ones((4, 3))}), inputs=(X,))
    proof = prove(replace(pair, torch=recorded(pair)))
    assert proof.same, proof.table()
    assert "both are rounding" in proof.summary["float32"]


def test_a_model_without_gradients_is_recorded() -> None:
    class Frozen(nn.Linear):
        @torch.no_grad()
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input)

    assert not recorded(Pair(torch=Frozen(3, 3), inputs=(X,))).differentiable


class Scaled(nn.Module):
    """Takes a number out of what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        return y * y.detach().max().item()


def test_a_model_whose_values_decide_what_it_computes_is_refused() -> None:
    with pytest.raises(PairError, match="values decide what it computes"):
        recorded(Pair(torch=Scaled(), inputs=(X,)))


def test_a_training_is_not_judged_against_a_recording() -> None:
    pair = MINIATURES["t-clip-epsilon"].build(0)
    proof = prove(replace(pair, torch=recorded(pair)))
    assert proof.summary["training"] == "not judged, since a recording of PyTorch's side holds none"


def test_other_inputs_than_those_recorded_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "torch.npz"
    write_recording(file, recorded(Pair(torch=torch.tanh, inputs=(X,))))
    assert against(Pair(jax=jnp.tanh, inputs=(X,)), file).torch.inputs[0].tolist() == X.tolist()
    with pytest.raises(PairError, match="recorded with other inputs"):
        against(Pair(jax=jnp.tanh, inputs=(X + 1,)), file)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_recording_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "torch.npz").write_bytes(content)
    with pytest.raises(RecordingError, match="no recording of this version, or not whole"):
        read_recording(tmp_path / "torch.npz")


def test_a_recording_without_one_of_its_arrays_or_of_another_version_is_refused(
    tmp_path: Path,
) -> None:
    file = tmp_path / "torch.npz"
    write_recording(file, recorded(Pair(torch=nn.Linear(3, 3), inputs=(X,))))
    with np.load(file) as whole:
        arrays = {name: whole[name] for name in whole.files}
    said = json.loads(arrays["recording"].tobytes())
    newer = np.frombuffer(json.dumps({**said, "schema": 99}).encode(), np.uint8)
    without = np.frombuffer(json.dumps({**said, "runs": []}).encode(), np.uint8)
    text = {"leaf:weight": np.array(["a"])}
    for changed in ({"recording": newer}, {"recording": without}, {"leaf:weight": None}, text):
        kept = {name: x for name, x in {**arrays, **changed}.items() if x is not None}
        np.savez(file, **kept)
        with pytest.raises(RecordingError, match="no recording"):
            read_recording(file)


@pytest.mark.parametrize(
    "op",
    [
        "aten.from_file.default",
        "aten.nothing.default",
        "os.system.x",
        "aten",
        "import_module.__call__.__call__",
        "load_library.__func__.__call__",
        "aten.add.__call__",
    ],
)
def test_only_operations_that_compute_are_made_again(op: str) -> None:
    recording = recorded(Pair(torch=torch.tanh, inputs=(X,)))
    run = recording.runs["float64"]
    steps = [{**step, "op": op} if "op" in step else step for step in run.steps]
    runs = {name: replace(run, steps=steps) for name in recording.runs}
    pair = Pair(torch=replace(recording, runs=runs), jax=jnp.tanh, inputs=(X,))
    with pytest.raises(PairError, match="is not known here"):
        prove(pair)


FILE = str(Path(sample.__file__))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--side", "torch"], "--side torch goes with --record FILE"),
        (["--side", "jax", "--record", "t.npz"], "--side jax goes with --against FILE"),
        (["--record", "t.npz", "--against", "t.npz"], "give one of them"),
        (["--record", "t.npz", "--show-map"], "give --show-map with --against"),
        (["--record", "no/where/t.npz"], "cannot write no/where/t.npz"),
        (["--against", "nothing.npz"], "nothing.npz is no file"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_parity(monkeypatch, "prove", f"{FILE}:right", *options) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not [*tmp_path.iterdir()]


PORT = """
import numpy as np
from parity import Pair

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)

def torch_side():
    from torch import nn
    return Pair(torch=nn.Sequential(nn.Linear(3, 5), nn.GELU()), inputs=(X,))

def jax_side():
    import jax
    from flax import nnx
    class Net(nnx.Module):
        def __init__(self):
            self.fc = nnx.Linear(3, 5, rngs=nnx.Rngs(0))
        def __call__(self, x):
            return jax.nn.gelu(self.fc(x), approximate=True)
    return Pair(jax=Net())
"""


def test_recorded_in_one_process_and_judged_in_another(tmp_path: Path) -> None:
    (tmp_path / "port.py").write_text(PORT)
    command = [sys.executable, "-m", "parity", "prove"]

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *args], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    first = run("port.py:torch_side", "--record", "torch.npz", "--side", "torch")
    assert first.stdout.startswith("recorded: 3 operations of 3 modules, and 2 leaves")
    second = run("port.py:jax_side", "--against", "torch.npz", "--side", "jax")
    assert (first.returncode, second.returncode) == (0, 1)
    assert "cause: gelu-tanh" in second.stdout
    missing = run("port.py:jax_side")
    assert missing.returncode == 2
    assert "torch is missing" in missing.stderr
