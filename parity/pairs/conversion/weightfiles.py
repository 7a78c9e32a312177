"""Files of weights: PyTorch's state_dict, JAX's tree in a folder of Orbax, safetensors of both."""

import io
import logging
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from parity.contract.errors import CheckpointError, OutputError
from parity.contract.files import write_whole, writing_folder
from parity.contract.run.checkpoint import reading
from parity.contract.run.pickled import mappings
from parity.contract.run.weights import FIRST, WRAPPERS
from parity.pairs.conversion.holders import Arrays, Holder, Side, to_numpy, to_tensor

_MARKS = ("_CHECKPOINT_METADATA", "_METADATA")
"""Files of which every folder of Orbax has one."""
_BUILDS_TENSORS = re.compile(
    r"collections OrderedDict|torch (\w+Storage|b?float\w+|u?int\d+|bool)"
    r"|torch\.storage UntypedStorage|torch\._utils _rebuild_(parameter|tensor_v[23])"
)
"""Of the names that PyTorch allows, some fill any memory: bytearray, set, Counter."""


def file_format(path: Path, error: type[CheckpointError | OutputError]) -> str:
    """Return .safetensors, .pt, or nothing for a folder of Orbax; raise `error` for another."""
    suffix = "" if path.is_dir() else path.suffix
    suffix = ".pt" if suffix == ".pth" else suffix
    if suffix not in (".safetensors", ".pt", ""):
        formats = "a file .safetensors or .pt, or a folder of Orbax, whose name has no suffix"
        raise error(f"{path} is of no known format: weights are {formats}")
    return suffix


def read_arrays(
    path: Path, side: Side | None, holders: Mapping[Side, Holder]
) -> tuple[Side, Arrays]:
    """Return whose weights a file holds, and these; names and shapes are that model's.

    Without a side it is the one whose names they are. CheckpointError: they are not, or the file is
    missing, damaged or hostile.
    """
    form = file_format(path, CheckpointError)
    with reading(path), warnings.catch_warnings(action="ignore"):
        if not form:
            return "JAX", _read_folder(path, holders["JAX"])
        meta: Mapping[str, str] = {}
        if not path.is_file():
            raise CheckpointError("it is not a file")
        if form == ".pt":
            tensors = _read_pt(path)
        else:
            with safetensors.safe_open(path, "pt") as file:
                meta = file.metadata() or {}
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if side is None:

            def likeness(holder: Holder) -> tuple[int, bool]:
                right = sum(shapes.get(n) == x.shape for n, x in holder.own.items())
                return right, (meta.get("format") == "flax") == (holder.side == "JAX")

            side = max(holders.values(), key=likeness).side
        _require_fit(shapes, holders[side])
        found = {name: to_numpy(tensor) for name, tensor in tensors.items()}
        return side, _one_name_each(found, holders[side])


def _require_fit(shapes: Mapping[str, Any], holder: Holder) -> None:
    """Raise CheckpointError unless names and shapes are the model's; a second name may lack."""
    wanted = {name: array.shape for name, array in holder.own.items()}
    first = {name: holder.aliases.get(name, name) for name in wanted}
    there = {first[name] for name in shapes if name in first}
    lacking = [name for name in wanted if first[name] not in there]
    extra = [name for name in shapes if name not in wanted]
    parts = [
        f"{what} {', '.join(names[:5])}{' …' * (len(names) > 5)}"
        for what, names in (("missing", lacking), ("unexpected", extra))
        if names
    ]
    wrong = [
        f"{n} is {tuple(s)}, expected {wanted[n]}"
        for n, s in shapes.items()
        if n in wanted and tuple(s) != wanted[n]
    ]
    if parts or wrong:
        raise CheckpointError(
            f"its arrays are not those of the {holder.side} model: "
            + "; ".join([*parts, *wrong[:3]])
        )


def _one_name_each(found: Arrays, holder: Holder) -> Arrays:
    """Return the arrays with each of several names' first one. CheckpointError: they differ."""
    for name, first in holder.aliases.items():
        if name not in found:
            continue
        if found.setdefault(first, found[name]).tobytes() != found[name].tobytes():
            raise CheckpointError(f"{name} and {first} are one array in the model, but differ")
    return found


def _read_pt(path: Path) -> dict[str, Tensor]:
    """Return a state_dict; nothing is called but what builds tensors, and nothing can grow."""
    if not zipfile.is_zipfile(path):
        raise CheckpointError("it is not a zip archive of torch.save")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        stored = all(e.compress_type == zipfile.ZIP_STORED for e in entries)
        if not stored or sum(e.file_size for e in entries) > path.stat().st_size:
            raise CheckpointError("it would grow when it is read")
        for pickled in (archive.read(e) for e in entries if e.filename.endswith(".pkl")):
            for opcode, name, _ in pickletools.genops(pickled):
                if opcode.name == "GLOBAL" and not _BUILDS_TENSORS.fullmatch(str(name)):
                    raise CheckpointError(f"it names {name}, which a state_dict does not need")
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    found = {path: held for path, held in mappings(loaded) if _is_state_dict(held, loaded)}
    best = next((key for key in ("", *FIRST) if key in found), None)
    if best is None and len(found) != 1:
        holds = sorted(map(str, loaded)) if isinstance(loaded, Mapping) else type(loaded).__name__
        state_dicts = f", state_dicts under {', '.join(found)}" if found else ""
        raise CheckpointError(f"it holds {holds}{state_dicts}, expected one state_dict")
    tensors = found[best] if best is not None else next(iter(found.values()))
    for front in WRAPPERS:
        if all(name.startswith(f"{front}.") for name in tensors):
            tensors = {name.removeprefix(f"{front}."): x for name, x in tensors.items()}
    return dict(tensors)


def _is_state_dict(held: Mapping[Any, Any], whole: object) -> bool:
    """Return whether it holds tensors by name, and nothing else; nor an optimiser's moments."""
    named = all(isinstance(n, str) and isinstance(x, Tensor) for n, x in held.items())
    return (
        (bool(held) or held is whole) and named and not held.keys() & {"exp_avg", "momentum_buffer"}
    )


def _read_folder(path: Path, holder: Holder) -> Arrays:
    path = path.resolve()
    if not any((path / mark).is_file() for mark in _MARKS):
        raise CheckpointError("it is not a folder of Orbax")
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            metadata: Any = checkpointer.metadata(path).item_metadata
            kept = {str(leaf.name): leaf for leaf in jax.tree.leaves(metadata.tree)}
            names = _names(holder)
            _require_fit({names.get(n, n): leaf.shape for n, leaf in kept.items()}, holder)
            empty = {names[n]: np.zeros(leaf.shape, leaf.dtype) for n, leaf in kept.items()}
            target = holder.tree(empty)
            restored = checkpointer.restore(path, args=ocp.args.StandardRestore(target))
    finally:
        logger.setLevel(level)
    leaves = jax.tree_util.tree_leaves_with_path(restored)
    found = {jax.tree_util.keystr(p, simple=True, separator="."): np.asarray(x) for p, x in leaves}
    return {names[name]: value for name, value in found.items() if name in names}


def _names(holder: Holder) -> dict[str, str]:
    """Return the map's names by the names in Orbax's tree."""
    tree = holder.tree({name: name for name in holder.own})
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): name
        for path, name in jax.tree_util.tree_leaves_with_path(tree)
    }


def write_arrays(path: Path, arrays: Arrays, holder: Holder) -> None:
    """Write weights whole or not at all. OutputError: they cannot be written."""
    form = file_format(path, OutputError)
    if not form:
        return _write_folder(path, holder.tree(arrays))
    tensors = {name: to_tensor(array) for name, array in arrays.items()}
    if form == ".pt":
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        content = buffer.getvalue()
    else:
        kind = {"format": "pt" if holder.side == "PyTorch" else "flax"}
        content = safetensors.torch.save(tensors, kind)
    return write_whole(path, content)


def _write_folder(path: Path, tree: Any) -> None:
    if path.exists() and not any((path / mark).is_file() for mark in _MARKS):
        raise OutputError(f"{path} is not a folder of Orbax and is not replaced; name another")
    with writing_folder(path) as folder:
        try:
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
                checkpointer.save(folder, args=ocp.args.StandardSave(tree))
        except ValueError as error:  # TensorStore's, also for a disk that is full
            raise OutputError(f"cannot write {path}: {error}") from None
