"""A checkpoint of a user's model becomes the other side's, and comes back bit for bit."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as linen
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.flax
import safetensors.torch
import torch
from flax import nnx, traverse_util
from torch import Tensor, nn

from parity import Pair
from parity.contract.errors import CheckpointError
from parity.pairs.conversion.converted import convert_weights
from parity.pairs.mapping.mapfile import read_map, write_map
from parity.pairs.proof import MapRow
from tests.pairs.weights import (
    PAIRS,
    attention,
    bits,
    linen_pair,
    loaded,
    nnx_pair,
    saved,
    trained,
    tree_pair,
)


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize(
    ("start", "middle", "end"),
    [("a.pt", "b", "c.safetensors"), ("a.safetensors", "b.safetensors", "c.pt")],
)
def test_the_round_trip_keeps_every_bit(
    kind: str, start: str, middle: str, end: str, tmp_path: Path
) -> None:
    pair = PAIRS[kind]()
    weights = trained(pair)
    first = saved(tmp_path / start, weights)
    there = convert_weights(pair, first, tmp_path / middle)
    back = convert_weights(pair, tmp_path / middle, tmp_path / end)
    assert (there.source, there.target) == (back.target, back.source) == ("PyTorch", "JAX")
    found = loaded(tmp_path / end)
    assert [*found] == [*pair.torch.state_dict()] or end != "c.pt"
    assert bits(found) == bits(weights)
    pair.torch.load_state_dict(found)
    if "norm.num_batches_tracked" in found:
        own = nnx_pair().torch.state_dict()["norm.num_batches_tracked"]
        assert torch.equal(found["norm.num_batches_tracked"], own)


def the_jax_outputs(kind: str, pair: Pair, folder: Path) -> np.ndarray:
    """Return what JAX's model gives with the weights that Orbax restores, as its users would."""
    tree: Any = ocp.StandardCheckpointer().restore(folder)
    if kind == "tree":
        return np.asarray(attention(tree, pair.inputs[0]))
    images = pair.inputs[0].transpose(0, 2, 3, 1)
    if kind == "linen":
        assert set(tree) == {"params", "batch_stats"}
        return np.asarray(pair.jax[0].apply(tree, images))
    state = nnx.state(pair.jax)
    nnx.replace_by_pure_dict(state, tree)
    nnx.update(pair.jax, state)
    pair.jax.eval()
    return np.asarray(pair.jax(images))


@pytest.mark.parametrize("kind", PAIRS)
def test_the_converted_model_gives_pytorchs_outputs(kind: str, tmp_path: Path) -> None:
    pair = PAIRS[kind]()
    weights = trained(pair)
    convert_weights(pair, saved(tmp_path / "a.pt", weights), tmp_path / "b")
    pair.torch.load_state_dict(weights)
    with torch.no_grad():
        expected = pair.torch.eval()(torch.from_numpy(pair.inputs[0])).numpy()
    np.testing.assert_allclose(the_jax_outputs(kind, pair, tmp_path / "b"), expected, rtol=2e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("middle", ["b", "b.safetensors"])
def test_a_checkpoints_own_types_are_kept(dtype: torch.dtype, middle: str, tmp_path: Path) -> None:
    pair = tree_pair()
    weights = trained(pair, dtype)
    convert_weights(pair, saved(tmp_path / "a.pt", weights), tmp_path / middle)
    convert_weights(pair, tmp_path / middle, tmp_path / "c.pt")
    assert bits(loaded(tmp_path / "c.pt")) == bits(weights)
    if middle != "b":
        assert {str(x.dtype) for x in loaded(tmp_path / middle).values()} == {str(dtype)}


def test_values_that_are_no_numbers_are_kept_too(tmp_path: Path) -> None:
    pair = tree_pair()
    weights = trained(pair)
    weights["out.bias"][:3] = torch.tensor([float("nan"), -0.0, float("inf")])
    convert_weights(pair, saved(tmp_path / "a.pt", weights), tmp_path / "b")
    convert_weights(pair, tmp_path / "b", tmp_path / "c.pt")
    assert bits(loaded(tmp_path / "c.pt")) == bits(weights)


def test_stacked_parts_are_cut_and_filled(tmp_path: Path) -> None:
    pair = tree_pair()
    weights = trained(pair)
    target = tmp_path / "b.safetensors"
    convert_weights(pair, saved(tmp_path / "a.pt", weights), target)
    found = safetensors.flax.load_file(target)
    assert set(found) == {*(f"{n}.{x}" for n in ("query", "key", "value") for x in "wb"),
                          "layers.0.w", "layers.0.b"}  # fmt: skip
    for part, name in enumerate(("query", "key", "value")):
        rows = slice(8 * part, 8 * part + 8)
        np.testing.assert_array_equal(found[f"{name}.w"], weights["qkv.weight"][rows].T)
        np.testing.assert_array_equal(found[f"{name}.b"], weights["qkv.bias"][rows])


def test_parts_of_several_types_do_not_fit_into_one_array(tmp_path: Path) -> None:
    pair = tree_pair()
    source, mixed = tmp_path / "b.safetensors", tmp_path / "mixed.safetensors"
    convert_weights(pair, saved(tmp_path / "a.pt", trained(pair)), source)
    arrays = loaded(source)
    saved(mixed, {**arrays, "key.w": arrays["key.w"].half()})
    with pytest.raises(CheckpointError, match=r"qkv.weight holds several .* float16, float32"):
        convert_weights(pair, mixed, tmp_path / "c.pt")


def test_buffers_without_a_twin_are_named(tmp_path: Path) -> None:
    pair = nnx_pair()
    done = convert_weights(pair, saved(tmp_path / "a.pt", trained(pair)), tmp_path / "b")
    assert done.notes == ["PyTorch's are left out, without twins: norm.num_batches_tracked"]
    assert str(done) == "8 arrays of PyTorch's model as JAX's"
    back = convert_weights(pair, tmp_path / "b", tmp_path / "c.pt")
    assert back.notes == ["PyTorch's own values are kept, without twins: norm.num_batches_tracked"]


def test_names_of_flax_are_those_of_its_own_tree(tmp_path: Path) -> None:
    pair = linen_pair()
    convert_weights(pair, saved(tmp_path / "a.pt", trained(pair)), tmp_path / "b")
    tree = ocp.StandardCheckpointer().restore(tmp_path / "b")
    assert jax.tree.structure(tree) == jax.tree.structure(dict(pair.jax[1]))
    shapes = jax.tree.map(np.shape, tree, is_leaf=lambda x: hasattr(x, "shape"))
    own = jax.tree.map(np.shape, dict(pair.jax[1]), is_leaf=lambda x: hasattr(x, "shape"))
    assert shapes == own


def test_a_folder_that_flax_users_wrote_is_read(tmp_path: Path) -> None:
    pair = linen_pair()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "b", dict(pair.jax[1]))
    convert_weights(pair, tmp_path / "b", tmp_path / "c.safetensors")
    own = traverse_util.flatten_dict(linen.meta.unbox(dict(pair.jax[1])), sep=".")
    found = loaded(tmp_path / "c.safetensors")
    np.testing.assert_array_equal(found["fc.bias"], np.asarray(own["params.Dense_0.bias"]))


class Tied(nn.Module):
    """An embedding whose weight is the last layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embed(x)))


def tied_pair() -> Pair:
    def call(params: Any, x: Any) -> Any:
        return jax.numpy.tanh(params["table"][x]) @ params["table"].T

    table = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    return Pair(torch=Tied(), jax=(call, {"table": table}), inputs=(np.arange(6).reshape(2, 3),))


@pytest.mark.parametrize(
    "kept", [("embed.weight", "head.weight"), ("embed.weight",), ("head.weight",)]
)
def test_a_tied_weight_may_have_either_name(kept: tuple[str, ...], tmp_path: Path) -> None:
    pair = tied_pair()
    weights = {name: value.clone() for name, value in trained(pair).items() if name in kept}
    weights = dict.fromkeys(kept, weights[kept[0]])
    convert_weights(pair, saved(tmp_path / "a.pt", weights), tmp_path / "b")
    convert_weights(pair, tmp_path / "b", tmp_path / "c.pt")
    found = loaded(tmp_path / "c.pt")
    assert set(found) == {"embed.weight", "head.weight"}
    assert all(torch.equal(value, weights[kept[0]]) for value in found.values())


def test_a_tied_weight_with_two_values_is_refused(tmp_path: Path) -> None:
    pair = tied_pair()
    weights = {name: torch.full((7, 4), float(n)) for n, name in enumerate(pair.torch.state_dict())}
    with pytest.raises(CheckpointError, match="are one array in the model, but differ"):
        convert_weights(pair, saved(tmp_path / "a.pt", weights), tmp_path / "b")


def without_bias() -> Pair:
    """Return a pair whose JAX side lacks the last bias."""
    pair = tree_pair()
    function, params = pair.jax
    zeros = np.zeros(8, np.float32)

    def call(params: Any, x: Any) -> Any:
        return function({**params, "layers": [{**params["layers"][0], "b": zeros}]}, x)

    return dataclasses.replace(
        pair, jax=(call, {**params, "layers": [{"w": params["layers"][0]["w"]}]})
    )


def test_a_bias_that_vanishes_is_left_out_and_comes_back_as_zeros(tmp_path: Path) -> None:
    pair = without_bias()
    weights = trained(pair)
    weights["out.bias"][:] = 0
    done = convert_weights(pair, saved(tmp_path / "a.pt", weights), tmp_path / "b")
    assert done.notes == ["PyTorch's are left out, which are 0 everywhere: out.bias"]
    back = convert_weights(pair, tmp_path / "b", tmp_path / "c.pt")
    assert back.notes == ["only PyTorch has these, set to 0: out.bias"]
    assert bits(loaded(tmp_path / "c.pt")) == bits(weights)


def test_a_bias_that_does_not_vanish_is_refused_by_name(tmp_path: Path) -> None:
    pair = without_bias()
    source = saved(tmp_path / "a.pt", trained(pair))
    with pytest.raises(CheckpointError, match=r"out\.bias \(8,\) has no twin in JAX, and is not 0"):
        convert_weights(pair, source, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_the_users_map_wins(tmp_path: Path) -> None:
    pair = tree_pair()
    write_map(
        tmp_path / "map.toml", [MapRow(torch="out.weight", jax="layers.0.w", pattern="a b -> a b")]
    )
    weights = trained(pair)
    source, target = saved(tmp_path / "a.pt", weights), tmp_path / "b.safetensors"
    done = convert_weights(pair, source, target, map=read_map(tmp_path / "map.toml"))
    found = loaded(target)
    assert torch.equal(found["layers.0.w"], weights["out.weight"])
    assert any("not the same computation" in note for note in done.notes)
