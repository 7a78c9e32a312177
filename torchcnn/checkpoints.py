"""Checkpoints as PyTorch's users keep them: `.pt` files of torch.save.

    checkpoint = torch.load("model.pt", weights_only=True)
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])  # a torch.optim.Adam

`checkpoint["checkpoint"]` holds the rest: recipe, position, records.
"""

import dataclasses
import io
import pickle
import pickletools
import re
import reprlib
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from parity.contract.errors import CheckpointError
from parity.contract.files import write_whole
from parity.contract.recipe import DType, Recipe
from parity.contract.run.checkpoint import Checkpoint, content_of, reading
from parity.contract.state import PARAMETERS, Arrays, State
from torchcnn.optim import adam
from torchcnn.state import import_state

_LONGEST = 2**25
"""Characters beside the tensors; one hundred thousand epochs have a third of it."""

_BUILDS_TENSORS = re.compile(
    r"collections OrderedDict|torch \w+Storage|torch\._utils _rebuild_(parameter|tensor_v2)"
)
"""Of the names that PyTorch allows, some fill any memory: bytearray, set, Counter."""


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

    What the file lacks has its default: the recipe, but for learning rate and dtype; the beginning
    of the first epoch; for a state_dict alone moments and step of zero. Nothing is called but what
    builds tensors. A CheckpointError names a file that is missing, damaged, hostile or of others.
    """
    with reading(path), warnings.catch_warnings(action="ignore"):
        content = content_of(path)
        _require_stored(content)
        try:
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise CheckpointError(
                "torch.load refuses it: it is damaged, or holds something else than tensors"
            ) from None
        return _from_loaded(loaded)


def _require_stored(content: bytes) -> None:
    """Refuse what is no archive of torch.save, is damaged, or would grow when it is read."""
    if not content.startswith(b"PK\x03\x04"):  # torch.load tells the format by its first bytes
        raise CheckpointError("it is not a zip archive of torch.save")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise CheckpointError("it is compressed, which torch.save does not do")
        if sum(e.file_size for e in entries) > len(content):
            raise CheckpointError("it would grow when it is read")
        if len({e.filename for e in entries}) < len(entries):
            raise CheckpointError("it has two entries of one name")
        if damaged := archive.testzip():
            raise CheckpointError(f"it is damaged: the checksum of {damaged!r} differs")
        for pickled in (archive.read(e) for e in entries if e.filename.endswith(".pkl")):
            for opcode, name, _ in pickletools.genops(pickled):
                if opcode.name == "GLOBAL" and not _BUILDS_TENSORS.fullmatch(str(name)):
                    raise CheckpointError(f"it names {name}, which a checkpoint does not need")


def _from_loaded(loaded: Any) -> Checkpoint:
    match loaded:
        case Mapping() if set(loaded) == set(PARAMETERS):
            params = _arrays(loaded)
            shapes = {name: (p.shape, params[name].dtype) for name, p in PARAMETERS.items()}
            m, v = ({name: np.zeros(*of) for name, of in shapes.items()} for _ in range(2))
            state = State(params=params, adam_m=m, adam_v=v, step=0)
            return _at_the_beginning(state, lr=Recipe.lr)
        case {
            "model": Mapping() as model,
            "optimizer": {"state": dict() as moments, "param_groups": [dict() as group]},
            **rest,
        } if set(rest) <= {"checkpoint"}:
            state = _state(model, moments)
            if _length(rest, {}) > _LONGEST:
                raise CheckpointError("it holds too many values")
            if rest:
                checkpoint = Checkpoint.from_json(rest["checkpoint"], state)
            else:
                checkpoint = _at_the_beginning(state, lr=group.get("lr"))
            _require_adam(group, lr=checkpoint.recipe.lr)
            return checkpoint
    found = sorted(map(str, loaded)) if isinstance(loaded, Mapping) else type(loaded).__name__
    raise CheckpointError(
        f"it holds {found}, expected {list(PARAMETERS)}, or model, optimizer (with state and one"
        " group of parameters) and checkpoint"
    )


def _length(value: Any, known: dict[int, int]) -> int:
    """Return about how long it is as JSON, in which what is held twice is written twice."""
    if id(value) not in known:
        held = [*value, *value.values()] if isinstance(value, dict) else value
        if isinstance(value, dict | list | tuple):
            known[id(value)] = 2 + sum(_length(item, known) for item in held)
        else:
            known[id(value)] = len(str(value)) if isinstance(value, str | int | float) else 1
    return known[id(value)]


def _at_the_beginning(state: State, *, lr: Any) -> Checkpoint:
    return Checkpoint(
        recipe=Recipe(lr=float(lr), dtype=cast(DType, str(state.dtype))),
        dataset_sha256=None,
        state=state,
        epoch=1,
        batch=0,
        loss_sum=0.0,
        epochs=(),
        backend="torch.save",
        versions={},
    )


def _state(model: Mapping[str, Any], moments: dict[Any, Any]) -> State:
    """Return the state of a network's state_dict and of Adam's; it checks shapes and dtypes."""
    if set(moments) != set(range(len(PARAMETERS))):
        raise CheckpointError(f"its optimizer has moments of the parameters {sorted(moments)}")
    tables = {name: moments[index] for index, name in enumerate(PARAMETERS)}
    for name, table in tables.items():
        if not isinstance(table, dict) or set(table) != {"step", "exp_avg", "exp_avg_sq"}:
            raise CheckpointError(f"its optimizer must have step, exp_avg, exp_avg_sq of {name}")
    step, adam_m, adam_v = (
        _arrays({name: table[key] for name, table in tables.items()})
        for key in ("step", "exp_avg", "exp_avg_sq")
    )
    steps = {float(count) for count in step.values()}
    if len(steps) != 1 or not min(steps).is_integer():
        raise CheckpointError(f"Adam has made different numbers of steps: {sorted(steps)}")
    return State(params=_arrays(model), adam_m=adam_m, adam_v=adam_v, step=int(steps.pop()))


def _arrays(tensors: Mapping[str, Any]) -> Arrays:
    """Return tensors in NumPy, not copied: before State checks it, one may exceed the memory."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{name} is {type(tensor).__name__}, expected a tensor")
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def _require_adam(group: dict[str, Any], *, lr: float) -> None:
    """Refuse the settings of another optimiser than the recipe's."""
    recipes = adam([torch.zeros(1) for _ in PARAMETERS], lr=lr).state_dict()["param_groups"][0]
    for key in ("params", "lr", "betas", "eps", "weight_decay", "amsgrad", "maximize"):
        got, expected = group.get(key), recipes[key]
        if not isinstance(got, int | float | tuple | list) or got != expected:
            raise CheckpointError(
                f"its optimizer has {key} {reprlib.repr(got)}, expected {expected!r}"
            )
