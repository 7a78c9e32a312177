"""Orbax's folders: other arrays, missing files and hostile shapes are refused by name."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest

import jaxcnn
from parity.contract.errors import OutputError
from tests.checkpoints import checkpoint, random_state, refused, signed


@pytest.fixture(scope="module")
def orbax(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("orbax") / "model"
    jaxcnn.write_native(folder, checkpoint())
    return folder


def save_orbax(folder: Path, state: Any, values: Any) -> None:
    items = {"state": ocp.args.StandardSave(state), "checkpoint": ocp.args.JsonSave(values)}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(folder, args=ocp.args.Composite(**items))


def orbax_tree() -> Any:
    from jaxcnn.checkpoints import _to_tree

    return _to_tree(random_state(0))


def kernel(value: Any) -> Callable[[Any], object]:
    return lambda tree: tree["params"]["conv1"].update(kernel=value)


TREES = {
    "another shape": (kernel(np.zeros((3, 3, 16, 1), np.float32)), "params.conv1.kernel"),
    "a huge one": (kernel(np.zeros((2**20, 3), np.float32)), "params.conv1.kernel"),
    "two precisions": (
        kernel(np.zeros((3, 3, 1, 16), np.float64)), "unexpected {'params.conv1.kernel"
    ),
    "integers": (kernel(np.zeros((3, 3, 1, 16), np.int32)), "params.conv1.kernel"),
    "a number": (kernel(1.5), "params.conv1.kernel|chunk_shape"),
    "missing": (lambda tree: tree["params"]["fc1"].pop("bias"), r"\['params\.fc1\.bias'\]"),
    "extra": (lambda tree: tree["params"].update(fc2=np.zeros(3)), "unexpected {'params.fc2"),
    "no optimiser": (lambda tree: tree.pop("opt_state"), "opt_state"),
    "other values": (kernel(np.full((3, 3, 1, 16), 1, np.float32)), "SHA-256 differs"),
    "a negative count": (
        lambda tree: tree["opt_state"][0].count.__isub__(99), "step must be at least 0"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), TREES.values(), ids=TREES)
def test_orbaxs_folder_of_other_arrays_is_refused(
    change: Callable[[Any], object], reason: str, tmp_path: Path
) -> None:
    tree = orbax_tree()
    change(tree)
    save_orbax(tmp_path / "model", tree, checkpoint().to_json())
    with refused(reason):
        jaxcnn.read_native(tmp_path / "model")


@pytest.mark.parametrize(
    ("values", "reason"),
    [([], r"schema is \[\]"), ({"schema": 2}, "schema is 2"), ({"schema": 1}, "SHA-256 differs"),
     (signed(lambda values: values.update(epoch=0)), "epoch must be"),
     ({**checkpoint().to_json(), "epoch": 1}, "SHA-256 differs"),
     ({**checkpoint().to_json(), "loss_sum": float("inf")}, "not JSON")],
)  # fmt: skip
def test_orbaxs_folder_that_says_what_cannot_be_is_refused(
    values: Any, reason: str, tmp_path: Path
) -> None:
    save_orbax(tmp_path / "model", orbax_tree(), values)
    with refused(reason):
        jaxcnn.read_native(tmp_path / "model")


def test_orbaxs_folder_without_one_of_its_files_is_refused(orbax: Path, tmp_path: Path) -> None:
    """Or with an empty one. Its records of the saving, and what it has twice, may be missing."""
    dispensable = re.compile(r"commit_success\.txt|ocdbt\.process_0|_CHECKPOINT_METADATA|_sharding")
    files = [file.relative_to(orbax) for file in orbax.rglob("*") if file.is_file()]
    needed = [file for file in files if not dispensable.search(str(file))]
    assert len(needed) >= 4
    for file in needed:
        for damage in (Path.unlink, lambda path: path.write_bytes(b"")):
            folder = tmp_path / "model"
            shutil.copytree(orbax, folder)
            damage(folder / file)
            with refused(str(folder)):
                jaxcnn.read_native(folder)
            shutil.rmtree(folder)


def test_orbaxs_folder_beyond_all_measure_is_refused(orbax: Path, tmp_path: Path) -> None:
    shutil.copytree(orbax, tmp_path / "model")
    with (tmp_path / "model" / "more").open("wb") as file:
        file.truncate(10**10)
    with refused("it has more than"):
        jaxcnn.read_native(tmp_path / "model")


def test_a_pipe_in_orbaxs_folder_is_refused_without_waiting(orbax: Path, tmp_path: Path) -> None:
    shutil.copytree(orbax, tmp_path / "model")
    metadata = tmp_path / "model" / "state" / "_METADATA"
    metadata.unlink()
    os.mkfifo(metadata)
    with refused("something else than files and folders"):
        jaxcnn.read_native(tmp_path / "model")


def test_orbaxs_shapes_are_not_believed(orbax: Path, tmp_path: Path) -> None:
    """What announces the shapes and what holds the values are two files."""
    tree = orbax_tree()
    kernel(np.zeros((2**20, 3), np.float32))(tree)
    save_orbax(tmp_path / "model", tree, checkpoint().to_json())
    metadata = tmp_path / "model" / "state" / "_METADATA"
    metadata.write_bytes((orbax / "state" / "_METADATA").read_bytes())
    with refused(str(tmp_path / "model")):
        jaxcnn.read_native(tmp_path / "model")


@pytest.mark.parametrize("there", ["file", "folder"])
def test_orbax_replaces_nothing_but_its_own_folders(there: str, tmp_path: Path) -> None:
    path = tmp_path / "home"
    if there == "file":
        path.write_text("dear")
    else:
        path.mkdir()
        (path / "letter").write_text("dear")
    with pytest.raises(OutputError, match="is not a folder of Orbax and is not replaced"):
        jaxcnn.write_native(path, checkpoint())
    [left] = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert left.read_text() == "dear"
