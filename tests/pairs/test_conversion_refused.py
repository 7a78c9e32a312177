"""What cannot be converted is refused by name, and nothing is left half-written."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch

from parity import Pair
from parity.commands.convert import Convert
from parity.contract.errors import CheckpointError, OutputError, RecipeError
from parity.pairs.conversion.converted import convert_weights
from parity.pairs.pair import PairError
from tests.pairs.weights import State, nnx_pair, saved, trained, tree_pair

WRONG: dict[str, tuple[Callable[[State], State], str]] = {
    "missing": (lambda s: {n: x for n, x in s.items() if n != "out.bias"}, "missing out.bias"),
    "unexpected": (lambda s: {**s, "x.y": torch.ones(1)}, "unexpected x.y"),
    "shape": (lambda s: {**s, "out.bias": torch.ones(9)}, r"out.bias is \(9,\), expected \(8,\)"),
    "empty": (lambda s: {}, "missing qkv.weight"),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("wrong", WRONG)
def test_other_names_and_shapes_are_refused(wrong: str, suffix: str, tmp_path: Path) -> None:
    pair = tree_pair()
    change, said = WRONG[wrong]
    source = saved(tmp_path / f"a{suffix}", change(trained(pair)))
    with pytest.raises(CheckpointError, match=said):
        convert_weights(pair, source, tmp_path / "b")
    assert sorted(tmp_path.iterdir()) == [source]


def test_a_folder_with_other_names_is_refused(tmp_path: Path) -> None:
    pair = tree_pair()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "a", {"query": np.ones(3)})
    with pytest.raises(CheckpointError, match=r"missing key\.b"):
        convert_weights(pair, tmp_path / "a", tmp_path / "b.pt")


def test_a_tensor_that_would_grow_is_refused_before_it_does(tmp_path: Path) -> None:
    pair = tree_pair()
    weights = {**trained(pair), "out.bias": torch.zeros(1).expand(10**13)}
    with pytest.raises(CheckpointError, match=r"out\.bias is \(10000000000000,\)"):
        convert_weights(pair, saved(tmp_path / "a.pt", weights), tmp_path / "b")


class Hostile:
    def __reduce__(self) -> Any:
        return print, ("called",)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
def test_what_is_no_checkpoint_is_refused(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair, source, target = tree_pair(), tmp_path / f"a{suffix}", tmp_path / "b.pt"
    target = tmp_path / "b" if suffix == ".pt" else target
    with pytest.raises(CheckpointError, match="is not there"):
        convert_weights(pair, source, target)
    source.mkdir() if not suffix else source.write_bytes(b"nothing of the kind" * 9)
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        convert_weights(pair, source, target)
    if suffix == ".pt":
        buffer = io.BytesIO()
        torch.save({"out.bias": Hostile()}, buffer)
        source.write_bytes(buffer.getvalue())
        with pytest.raises(CheckpointError, match="it names __builtin__ print"):
            convert_weights(pair, source, target)
        torch.save({"model": {}}, source)
        with pytest.raises(CheckpointError, match=r"holds \['model'\], expected one state_dict"):
            convert_weights(pair, source, target)
    assert "called" not in capsys.readouterr().out
    assert not target.exists()


WRAPPED = {
    "model_state_dict": lambda weights: {"model_state_dict": weights, "epoch": 3},
    "any one": lambda weights: {"best": {"weights": weights}, "loss": 0.1},
    "compiled": lambda weights: {f"_orig_mod.{name}": x for name, x in weights.items()},
    "parallel": lambda weights: {"net": {f"module.{name}": x for name, x in weights.items()}},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_a_state_dict_in_a_dictionary_is_found(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    pair = tree_pair()
    weights = trained(pair)
    plain, wrapped = saved(tmp_path / "a.pt", weights), tmp_path / "a.pth"
    torch.save(wrap(torch.load(plain)), wrapped)
    for source, target in ((plain, "plain.safetensors"), (wrapped, "wrapped.safetensors")):
        convert_weights(pair, source, tmp_path / target)
    assert (tmp_path / "plain.safetensors").read_bytes() == (
        tmp_path / "wrapped.safetensors"
    ).read_bytes()


def test_two_state_dicts_are_named(tmp_path: Path) -> None:
    torch.save({"a": {"w": torch.zeros(1)}, "b": {"w": torch.zeros(1)}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="state_dicts under a, b, expected one"):
        convert_weights(tree_pair(), tmp_path / "a.pt", tmp_path / "b")


def test_a_target_is_replaced_only_if_asked_for(tmp_path: Path) -> None:
    pair = tree_pair()
    source = saved(tmp_path / "a.pt", trained(pair))
    target = tmp_path / "b"
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(OutputError, match="--overwrite"):
        convert_weights(pair, source, target)
    with pytest.raises(OutputError, match="not a folder of Orbax"):
        convert_weights(pair, source, target, overwrite=True)
    assert [*target.iterdir()] == [target / "mine"]
    for _ in range(2):
        convert_weights(pair, source, tmp_path / "c", overwrite=True)


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("a.pt", "b.pt", "both PyTorch's"),
        ("a", "b", "both JAX's"),
        ("a.pt", "b.npz", "no known format"),
    ],
)
def test_a_target_of_the_same_side_is_refused(
    source: str, target: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=said):
        convert_weights(tree_pair(), tmp_path / source, tmp_path / target)


def test_functions_without_weights_cannot_be_converted(tmp_path: Path) -> None:
    pair = Pair(torch=torch.tanh, jax=jax.numpy.tanh, inputs=(np.ones(3, np.float32),))
    with pytest.raises(PairError, match="function without weights"):
        convert_weights(pair, tmp_path / "a.pt", tmp_path / "b")


def test_the_command_says_what_became_of_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = nnx_pair()
    source, target = saved(tmp_path / "a.pt", trained(pair)), tmp_path / "b"
    Convert(source=source, target=target, pair="tests.pairs.weights:nnx_pair").run()
    shown = capsys.readouterr().out.splitlines()
    assert shown[-2:] == [
        "note: PyTorch's are left out, without twins: norm.num_batches_tracked",
        f"{source} → {target}: 8 arrays of PyTorch's model as JAX's",
    ]


def test_a_map_without_a_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--pair"):
        Convert(source=tmp_path / "a.pt", target=tmp_path / "b", map=tmp_path / "map.toml").run()
