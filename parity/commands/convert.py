"""Checkpoints from one format to another, all of what they say.

`.safetensors` is the format of both backends, `.pt` PyTorch's, a folder Orbax's; the folder of a
run stands for the checkpoint in it.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

from parity.contract.backend import Backend
from parity.contract.errors import CheckpointError, OutputError
from parity.contract.run.checkpoint import (
    CHECKPOINT_FILE,
    Checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from parity.subjects.subject import BACKENDS


class Format(NamedTuple):
    """How checkpoints of one kind are read and written."""

    read: Callable[[Path], Checkpoint]
    write: Callable[[Path, Checkpoint], None]


def convert(source: Path, target: Path, *, overwrite: bool = False) -> Checkpoint:
    """Read a checkpoint in one format, write it in another, and return it.

    Raises:
        CheckpointError: `source` is missing, damaged or of no known format; names it.
        OutputError: `target` is there already and `overwrite` is not asked for, is of no known
            format, or cannot be written.
    """
    if target.is_dir() and (target / CHECKPOINT_FILE).exists():
        target /= CHECKPOINT_FILE
    if (target.exists() or target.is_symlink()) and not overwrite:
        raise OutputError(f"{target} is there already; name another one, or give --overwrite")
    write = _format_of(target, OutputError).write
    checkpoint = _format_of(source, CheckpointError).read(source)
    write(target, checkpoint)
    return checkpoint


def _format_of(path: Path, error: type[CheckpointError | OutputError]) -> Format:
    """Tell the format: a folder that is there by its content, everything else by its suffix."""
    if path.is_dir():
        return _own() if (path / CHECKPOINT_FILE).exists() else _native("jax")
    known = {".safetensors": _own, ".pt": lambda: _native("torch"), "": lambda: _native("jax")}
    if path.suffix not in known:
        raise error(
            f"{path} is of no known format: a checkpoint is a file .safetensors or .pt, or a folder"
            " of Orbax, whose name has no suffix"
        )
    return known[path.suffix]()


def _own() -> Format:
    return Format(read_checkpoint, write_checkpoint)


def _native(name: str) -> Format:
    """Return the format of a backend, which is imported."""
    backend = cast(Backend, importlib.import_module(BACKENDS[name]))
    return Format(backend.read_native, backend.write_native)
