"""Checkpoints as PyTorch's users keep them: `.pt` files of torch.save.

    checkpoint = torch.load("model.pt", weights_only=True)
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])  # a torch.optim.Adam

`checkpoint["checkpoint"]` holds the rest: recipe, position, records.
"""

import dataclasses
import io
from pathlib import Path

import torch

from parity.contract.files import write_whole
from parity.contract.run.checkpoint import Checkpoint, content_of, reading
from parity.contract.run.weights import read_saved
from torchcnn.state import import_state


def write_native(path: Path, checkpoint: Checkpoint) -> None:
    """Write a `.pt` file with keys model, optimizer and checkpoint; or raise OutputError."""
    here = dataclasses.replace(checkpoint.recipe, device="cpu", mode="eager")
    native = import_state(checkpoint.state, here)
    optimizer = native.optimizer.state_dict()
    optimizer["param_groups"][0].update(foreach=None, fused=None)  # PyTorch's choice, on any device
    buffer = io.BytesIO()
    model, rest = native.model.state_dict(), checkpoint.to_json()
    torch.save({"model": model, "optimizer": optimizer, "checkpoint": rest}, buffer)
    write_whole(path, buffer.getvalue())


def read_native(path: Path) -> Checkpoint:
    """Read what `write_native` wrote; that without its key checkpoint; or a state_dict alone.

    `read_saved` says what else, and what its defaults are. Nothing that the file names is run. A
    CheckpointError names a file that is missing, damaged, hostile or of others.
    """
    with reading(path):
        return read_saved(content_of(path))
