"""A checkpoint in any of the forms that people have, recognised by what is inside."""

import json
from collections.abc import Callable
from pathlib import Path

from parity.contract.errors import CheckpointError
from parity.contract.run.checkpoint import (
    CHECKPOINT_FILE,
    LARGEST,
    Checkpoint,
    content_of,
    read_checkpoint,
    reading,
)
from parity.contract.run.pickled import kind_of
from parity.contract.run.weights import read_saved, read_state_dict

ORBAX_MARK = "_CHECKPOINT_METADATA"
"""A file that every folder of Orbax has."""

_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")
"""The weights in a folder as transformers and accelerate write it."""


def open_checkpoint(
    path: Path, *, read_folder: Callable[[Path], Checkpoint], weights: bool = False
) -> Checkpoint:
    """Read a checkpoint, whatever its name says: its `notes` say what was made of it.

    It is this project's, or the folder of a run; an archive of torch.save or a safetensors file
    with the weights, and perhaps Adam's state; or a folder of Orbax, for which there is
    `read_folder`. With `weights` the optimiser may be another, and is left out.

    Raises:
        CheckpointError: it is not there, damaged, hostile or of another network; says what it is.
    """
    file = _file_of(path)
    if file.is_dir():
        return read_folder(file)
    with reading(file):
        content = content_of(file)
        if content.startswith(b"PK\x03\x04"):
            return read_saved(content, weights=weights)
        if content[8:9] != b"{":
            raise CheckpointError(f"it is {kind_of(content)}")
        length = int.from_bytes(content[:8], "little")
        if length <= LARGEST and _is_plain(content[8 : 8 + length]):
            return read_state_dict(content)
    return read_checkpoint(file)


def _is_plain(header: bytes) -> bool:
    """Return whether it is the header of tensors alone, without a checkpoint's metadata."""
    try:
        names = json.loads(header)
    except ValueError:
        return False
    return "checkpoint" not in (names.pop("__metadata__", None) or {}) and "step" not in names


def _file_of(path: Path) -> Path:
    """Return the file to read, or the folder of Orbax."""
    if not path.is_dir() or (path / ORBAX_MARK).is_file():
        return path
    if (path / CHECKPOINT_FILE).exists():
        return path / CHECKPOINT_FILE
    inside = sorted(path.iterdir())
    weights = [file for file in inside if file.name in _IN_FOLDERS]
    if len(weights) == 1:
        return weights[0]
    steps = [folder for folder in inside if (folder / ORBAX_MARK).is_file()]
    if steps or inside:
        names = ", ".join(each.name for each in (steps or inside)[:9])
        what = f"holds checkpoints of Orbax, {names}" if steps else f"holds {names}"
        raise CheckpointError(
            f"{path / CHECKPOINT_FILE} is not there: {path} {what}; name one of them"
        )
    return path / CHECKPOINT_FILE
