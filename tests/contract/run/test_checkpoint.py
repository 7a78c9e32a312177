"""A checkpoint comes back to the bit, and one that says what cannot be does not come back."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.contract.recipe import DType, Recipe
from parity.contract.run import checkpoint as module
from parity.contract.run.checkpoint import CHECKPOINT_FILE, read_checkpoint, write_checkpoint
from tests.checkpoints import assert_same, checkpoint, forge, random_state, record, refused


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["float32", "float64"]),
    step=st.integers(0, 2**31 - 1),
    lr=st.floats(1e-300, 1e30),
    loss_sum=st.floats(allow_nan=False, allow_infinity=False),
    sha256=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
    versions=st.dictionaries(
        st.text(st.characters(exclude_categories=())), st.text(), max_size=3
    ),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_what_was_written_is_read_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    dtype: DType,
    step: int,
    lr: float,
    loss_sum: float,
    sha256: str | None,
    versions: dict[str, str],
) -> None:
    written = checkpoint(
        recipe=Recipe(dtype=dtype, lr=lr, seed=seed, epochs=2),
        state=random_state(seed, dtype, step),
        loss_sum=loss_sum,
        dataset_sha256=sha256,
        versions=versions,
    )
    path = tmp_path_factory.mktemp("run") / CHECKPOINT_FILE
    write_checkpoint(path, written)
    assert_same(read_checkpoint(path), written)
    assert_same(read_checkpoint(path.parent), written)


def test_the_same_checkpoint_is_the_same_file(tmp_path: Path) -> None:
    """Whoever wrote it, and after whatever dictionary order."""
    one = checkpoint(versions={"a": "1", "b": "2"})
    other = checkpoint(versions={"b": "2", "a": "1"})
    for name, value in (("one", one), ("other", other)):
        write_checkpoint(tmp_path / name, value)
    write_checkpoint(tmp_path / "again", read_checkpoint(tmp_path / "one"))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_its_bytes_are_those_of_the_first_version(tmp_path: Path) -> None:
    """Every version reads what every other one wrote."""
    write_checkpoint(tmp_path / "file", checkpoint())
    digest = hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()
    assert digest == "987a9bf700d7551ee21c084ba53f96c5f39b3cee9c7fe06b67e0c656ae3b308c"


def test_one_from_before_there_were_kernels_has_the_layers(tmp_path: Path) -> None:
    path = forge(tmp_path, lambda values: values["recipe"].pop("kernel"))
    assert read_checkpoint(path).recipe.kernel == "layers"


def test_any_safetensors_reader_reads_it(tmp_path: Path) -> None:
    written = checkpoint()
    write_checkpoint(tmp_path / "file", written)
    tensors = safetensors.numpy.load_file(tmp_path / "file")
    assert len(tensors) == 13
    assert tensors["step"] == 31
    np.testing.assert_array_equal(tensors["adam.v.fc1.bias"], written.state.adam_v["fc1.bias"])
    with safetensors.safe_open(tmp_path / "file", "np") as file:
        values = json.loads(file.metadata()["checkpoint"])
    assert (values["schema"], values["epoch"], values["recipe"]["dataset"]) == (1, 2, "digits")


def test_the_folder_of_the_data_is_not_part_of_it(tmp_path: Path) -> None:
    recipe = dataclasses.replace(checkpoint().recipe, data_dir=Path("/home/someone/data"))
    write_checkpoint(tmp_path / "file", checkpoint(recipe=recipe))
    assert read_checkpoint(tmp_path / "file").recipe.data_dir is None
    assert b"someone" not in (tmp_path / "file").read_bytes()


def test_what_is_read_can_be_written_to(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "file", checkpoint())
    read_checkpoint(tmp_path / "file").state.params["fc1.bias"][0] = 1


NEVER = {
    "epoch 0": ({"epoch": 0, "epochs": ()}, "epoch must be an integer from 1 to 4"),
    "epoch beyond the end": ({"epoch": 5}, "epoch must be"),
    "epoch true": ({"epoch": True, "epochs": ()}, "epoch must be"),
    "epoch 2.0": ({"epoch": 2.0}, "epoch must be"),
    "batch -1": ({"batch": -1}, "batch must be"),
    "batch after the end": ({"epoch": 4, "epochs": tuple(map(record, (1, 2, 3)))}, "batch must be"),
    "batch beyond the limit": (
        {"recipe": Recipe(limit=400, epochs=3)}, "batch must be an integer from 0 to 7, got 8"
    ),
    "loss NaN": ({"loss_sum": float("nan")}, "must be a finite number .* got nan"),
    "loss infinite": ({"loss_sum": float("-inf")}, "loss_sum"),
    "loss of no batch": ({"batch": 0}, "loss_sum must be 0 before a batch"),
    "a record too few": ({"epochs": ()}, "records of the 1 before epoch 2"),
    "a record too many": ({"epochs": (record(1), record(2))}, "records of the 1 before"),
    "another record": ({"epochs": (record(2),)}, "epoch of a record"),
    "a record of NaN": (
        {"epochs": (dataclasses.replace(record(1), test_loss=float("nan")),)},
        "test_loss of epoch 1",
    ),
    "accuracy 2": (
        {"epochs": (dataclasses.replace(record(1), test_accuracy=2.0),)}, "from 0 to 1, got 2"
    ),
    "no digest": ({"dataset_sha256": "abc"}, "64 hexadecimal digits"),
    "version 2": ({"versions": {"torch": 2}}, "must be texts"),
    "backend 7": ({"backend": 7}, "must be texts"),
    "step 2**31": ({"state": random_state(0, step=2**31)}, "step must be an integer"),
    "another dtype": ({"state": random_state(0, "float64")}, "the state is float64"),
}  # fmt: skip


@pytest.mark.wrong_types
@pytest.mark.parametrize(("changes", "reason"), NEVER.values(), ids=NEVER)
def test_a_checkpoint_that_cannot_be_is_not_made(changes: dict[str, Any], reason: str) -> None:
    with refused(reason):
        checkpoint(**changes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("group", ["params", "adam_m", "adam_v"])
def test_a_state_that_is_not_finite_is_not_saved(group: str, value: float) -> None:
    state = random_state(0)
    getattr(state, group)["conv1.weight"][3, 0, 1, 2] = value
    with refused(r"\.conv1\.weight has values that are not finite"):
        checkpoint(state=state)


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    """Return a change that puts a value to a place in a checkpoint's JSON."""

    def change(values: Any) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = value

    return change


LONGEST = 10**4300 - 1
"""The largest integer that Python prints."""

FORGED = {
    "schema 2": (put("schema", value=2), "schema is 2, this version reads 1"),
    "schema '1'": (put("schema", value="1"), "schema is '1'"),
    "schema true": (put("schema", value=True), "schema is True"),
    "no schema": (lambda values: values.pop("schema"), "schema is None"),
    "no position": (lambda values: values.pop("batch"), "missing .* 'batch'"),
    "unknown field": (put("next", value=1), "unexpected keyword argument 'next'"),
    "state in the text": (put("state", value={}), "multiple values .*'state'"),
    "epoch 0": (put("epoch", value=0), "epoch must be"),
    "huge epoch": (put("epoch", value=10**4000), "epoch must be"),
    "huge loss": (put("loss_sum", value=10**400), "loss_sum must be a finite number"),
    "epochs a table": (put("epochs", value={}), "epochs must be the records"),
    "a record a number": (put("epochs", 0, value=7), "must be a mapping, not int"),
    "a record's text": (put("epochs", 0, "loss", value="1"), "loss of epoch 1 must be"),
    "a record's time": (put("epochs", 0, "seconds", value=-1.0), "seconds of epoch 1 must be"),
    "recipe a list": (put("recipe", value=[]), "of another kind: 'list'"),
    "recipe's data set": (put("recipe", "dataset", value="cifar"), "dataset must be one of mnist"),
    "recipe's list": (put("recipe", "dataset", value=["mnist"]), "dataset must be one of mnist"),
    "recipe's lr": (put("recipe", "lr", value=-1), "lr must be"),
    "recipe's huge lr": (put("recipe", "lr", value=10**400), "lr must be"),
    "an error too long to say": (
        lambda values: (
            put("epoch", value=0)(values),
            put("recipe", "epochs", value=LONGEST)(values),
        ),
        "Exceeds the limit",
    ),
    "recipe's other beta": (put("recipe", "b1", value=0.8), r"b1 must be 0\.9, got 0\.8"),
    "recipe's other field": (put("recipe", "momentum", value=0.8), r"unknown \['momentum'\]"),
    "recipe without seed": (lambda values: values["recipe"].pop("seed"), r"missing \['seed'\]"),
    "recipe's data_dir": (put("recipe", "data_dir", value=7), "data_dir must be a path"),
    "recipe's dtype": (put("recipe", "dtype", value="float64"), "recipe asks for float64"),
    "digest 7": (put("dataset_sha256", value=7), "64 hexadecimal digits"),
    "backend null": (put("backend", value=None), "must be texts"),
    "versions a list": (put("versions", value=["2"]), "must be texts"),
}


@pytest.mark.wrong_types
@pytest.mark.parametrize(("change", "reason"), FORGED.values(), ids=FORGED)
def test_a_file_that_says_what_cannot_be_is_refused_whatever_its_digest(
    change: Callable[[dict[str, Any]], object], reason: str, tmp_path: Path
) -> None:
    path = forge(tmp_path, change)
    with refused(reason) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(f"{path} is not a checkpoint of this network: ")
    assert str(caught.value).endswith("; use another checkpoint")
    assert len(str(caught.value)) < len(str(path)) + 600


def test_the_forger_makes_what_is_read(tmp_path: Path) -> None:
    assert_same(read_checkpoint(forge(tmp_path, lambda values: None)), checkpoint())


def test_more_epochs_than_would_be_read_again_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST", 4 * 328_000)
    many = checkpoint(recipe=Recipe(epochs=99), epoch=31, epochs=tuple(map(record, range(1, 31))))
    with refused("the records of 30 epochs are too many"):
        write_checkpoint(tmp_path / "file", many)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["file", "folder"])
def test_a_checkpoint_that_is_not_there_is_named(missing: str, tmp_path: Path) -> None:
    path = tmp_path if missing == "folder" else tmp_path / "file"
    with refused(f"{tmp_path}/.* is not there; use another checkpoint"):
        read_checkpoint(path)
