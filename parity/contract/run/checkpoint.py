"""Checkpoints of both backends: one safetensors file in canonical layout.

Tensors: `params.*`, `adam.m.*`, `adam.v.*`, and `step` as a 64-bit integer. Everything else is one
JSON text, the file's metadata `checkpoint`, with the digest of itself and of the tensors in it.
"""

import dataclasses
import hashlib
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from parity.contract.batches import batch_count
from parity.contract.errors import CheckpointError, CnnParityError
from parity.contract.files.digests import sha256_of
from parity.contract.files.tensors import (
    LARGEST_HEADER,
    Layout,
    MalformedError,
    Tensor,
    parse_json,
    read_tensors,
    unusable,
)
from parity.contract.files.whole import write_whole
from parity.contract.recipe import Recipe
from parity.contract.run.history import Epoch
from parity.contract.state import PARAMETERS, State

CHECKPOINT_FILE = "checkpoint.safetensors"
"""Its name in the folder of a run."""

SCHEMA = 1
"""Version of what a checkpoint says."""

LARGEST_STEP = 2**31 - 1
"""Optax counts steps in 32 bits."""

_GROUPS = {"params": "params", "adam.m": "adam_m", "adam.v": "adam_v"}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a training stands between two steps: all that it takes to go on, in either framework.

    Raises:
        CheckpointError: a field says what cannot be; names it.
    """

    recipe: Recipe
    """Without data_dir, which is dropped: the data may lie elsewhere where the training goes on."""
    dataset_sha256: str | None
    """Digest of the images and labels that it trains and tests on; None where nobody knows."""
    state: State
    epoch: int
    """The epoch under way, from 1; recipe.epochs + 1 when it is done."""
    batch: int
    """Batches of it that are done."""
    loss_sum: float
    """The sum of their losses."""
    epochs: tuple[Epoch, ...]
    """The records of the epochs before it."""
    backend: str
    """Who wrote it."""
    versions: dict[str, str]
    """Of the packages that it was computed with."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", dataclasses.replace(self.recipe, data_dir=None))
        _check_state(self.state, self.recipe)
        _check_position(self)
        for number, record in enumerate(self.epochs, start=1):
            _check_record(record, number)
        sha256 = self.dataset_sha256
        if sha256 is not None and not (
            isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)
        ):
            raise CheckpointError(f"dataset_sha256 must be 64 hexadecimal digits, got {sha256!r}")
        versions = self.versions
        if not isinstance(versions, dict) or not all(
            isinstance(text, str) for text in (self.backend, *versions, *versions.values())
        ):
            raise CheckpointError("backend and versions must be texts")

    def __str__(self) -> str:
        place = f"epoch {self.epoch}, {self.batch} batches of it done"
        if self.epoch > self.recipe.epochs:
            place = f"all {self.recipe.epochs} epochs done"
        return f"{self.recipe.dataset}, {self.recipe.dtype}, {place}, {self.state.step} steps made"

    def to_json(self) -> dict[str, Any]:
        """Return everything but the state as JSON values, with a digest of all of it."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "state"
        }
        values["schema"] = SCHEMA
        values["recipe"] = self.recipe.to_json()
        values["epochs"] = [dataclasses.asdict(record) for record in self.epochs]
        return {**values, "sha256": digest(values, self.state)}

    @classmethod
    def from_json(cls, values: Any, state: State) -> "Checkpoint":
        """Return the checkpoint that `to_json` gave these values for.

        Raises:
            CheckpointError: values or state are not as they were, a field is missing or unknown, or
                says what cannot be; names it.
        """
        if not isinstance(values, dict) or repr(values.get("schema")) != repr(SCHEMA):
            got = values.get("schema") if isinstance(values, dict) else values
            raise CheckpointError(f"schema is {got!r}, this version reads {SCHEMA}")
        fields = {field.name for field in dataclasses.fields(cls)} - {"state"}
        _require_fields("checkpoint", values, fields | {"schema", "sha256"})
        if values["sha256"] != digest({k: v for k, v in values.items() if k != "sha256"}, state):
            raise CheckpointError("its SHA-256 differs, something of it was changed")
        if not isinstance(values["recipe"], dict) or not isinstance(values["epochs"], list):
            raise CheckpointError("recipe must be a table and epochs a list")
        given = {name: values[name] for name in fields}
        given["epochs"] = tuple(_record(record) for record in values["epochs"])
        given["recipe"] = Recipe.from_json(values["recipe"])
        return cls(**given, state=state)


def digest(values: dict[str, Any], state: State) -> str:
    """Return the SHA-256 of a state, and of what else a checkpoint says.

    Raises:
        CheckpointError: it says what is not JSON.
    """
    tensors = _to_tensors(state)
    of_tensors = sha256_of(tensors[name] for name in sorted(tensors))
    try:
        return hashlib.sha256(f"{of_tensors} {_to_text(values)}".encode()).hexdigest()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"it says what is not JSON ({error})") from None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint: at any instant `path` is the one before, or the new one.

    Raises:
        OutputError: it cannot be written; what was there is untouched.
        CheckpointError: it has more epochs than would be read again.
    """
    text = _to_text(checkpoint.to_json())
    if len(text) > LARGEST_HEADER // 2:
        raise CheckpointError(
            f"the records of {len(checkpoint.epochs)} epochs are too many to read"
        )
    write_whole(path, safetensors.numpy.save(_to_tensors(checkpoint.state), {"checkpoint": text}))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint from a file, or from the folder of a run.

    Names, types, shapes and places of the tensors are checked before anything is allocated for
    them, then the digest, then what is said.

    Raises:
        CheckpointError: there is none, it is damaged, or it says what cannot be; names the file.
    """
    file = path / CHECKPOINT_FILE if path.is_dir() else path
    tensors, metadata = read_tensors(file, layouts=_LAYOUTS)
    try:
        return _from_tensors(tensors, metadata)
    except (MalformedError, CnnParityError, ValueError, RecursionError) as error:
        raise unusable(file, f"is not a checkpoint of this network: {error}") from None


def _from_tensors(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> Checkpoint:
    if set(metadata) != {"checkpoint"}:
        raise MalformedError(f"it has metadata {sorted(metadata)}, expected ['checkpoint']")
    values = parse_json(metadata["checkpoint"])
    if metadata["checkpoint"] != _to_text(values):
        raise MalformedError("its text is not as it was written")
    arrays = {
        group: {name: tensors[f"{prefix}.{name}"] for name in PARAMETERS}
        for prefix, group in _GROUPS.items()
    }
    return Checkpoint.from_json(values, State(**arrays, step=int(tensors["step"])))


def _to_tensors(state: State) -> dict[str, np.ndarray]:
    tensors = {
        f"{prefix}.{name}": np.ascontiguousarray(getattr(state, group)[name])
        for prefix, group in _GROUPS.items()
        for name in PARAMETERS
    }
    return {**tensors, "step": np.array(state.step, dtype=np.int64)}


_LAYOUTS: list[Layout] = [
    {
        **{
            f"{prefix}.{name}": Tensor(dtype, shape)
            for prefix in _GROUPS
            for name, (shape, _) in PARAMETERS.items()
        },
        "step": Tensor("int64", ()),
    }
    for dtype in ("float32", "float64")
]


def _to_text(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _check_state(state: State, recipe: Recipe) -> None:
    if state.dtype != recipe.dtype:
        raise CheckpointError(f"the state is {state.dtype}, but the recipe asks for {recipe.dtype}")
    if state.step > LARGEST_STEP:
        raise CheckpointError(f"step must be at most {LARGEST_STEP}, got {state.step}")
    for group in _GROUPS.values():
        for name, array in getattr(state, group).items():
            if not np.isfinite(array).all():
                raise CheckpointError(f"{group}.{name} has values that are not finite")


def _check_position(checkpoint: Checkpoint) -> None:
    recipe, epoch, batch = checkpoint.recipe, checkpoint.epoch, checkpoint.batch
    _require_integer("epoch", epoch, 1, recipe.epochs + 1)
    most = LARGEST_STEP if recipe.limit is None else batch_count(recipe.limit, recipe.batch_size)
    _require_integer("batch", batch, 0, most if epoch <= recipe.epochs else 0)
    _require_number("loss_sum", checkpoint.loss_sum)
    if batch == 0 and checkpoint.loss_sum != 0:
        raise CheckpointError(f"loss_sum must be 0 before a batch, got {checkpoint.loss_sum}")
    if not isinstance(checkpoint.epochs, tuple) or len(checkpoint.epochs) != epoch - 1:
        raise CheckpointError(f"epochs must be the records of the {epoch - 1} before epoch {epoch}")


def _check_record(record: Epoch, number: int) -> None:
    _require_integer("epoch of a record", record.epoch, number, number)
    for name in ("loss", "test_loss", "test_accuracy", "seconds"):
        _require_number(f"{name} of epoch {number}", getattr(record, name))
    if not 0 <= record.test_accuracy <= 1 or record.seconds < 0:
        raise CheckpointError(f"epoch {number} has an accuracy or a time that cannot be")


def _record(values: Any) -> Epoch:
    _require_fields(
        "record of an epoch", values, {field.name for field in dataclasses.fields(Epoch)}
    )
    return Epoch(**values)


def _require_fields(what: str, values: Any, fields: set[str]) -> None:
    if not isinstance(values, dict) or set(values) != fields:
        got = sorted(values) if isinstance(values, dict) else values
        raise CheckpointError(f"{what} must have {sorted(fields)}, got {got!r}")


def _require_integer(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise CheckpointError(f"{name} must be an integer from {least} to {most}, got {value!r}")


def _require_number(name: str, value: object) -> None:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not abs(number) <= sys.float_info.max:
        raise CheckpointError(f"{name} must be a finite number, got {value!r}")
