"""Checkpoints of both backends: one safetensors file; all but the state is JSON in its metadata."""

import contextlib
import dataclasses
import hashlib
import json
import math
import re
import reprlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from parity.contract.batches import batch_count
from parity.contract.data.datasets import sha256_of
from parity.contract.errors import CheckpointError, CnnParityError
from parity.contract.files import write_whole
from parity.contract.recipe import Recipe
from parity.contract.run.history import Epoch
from parity.contract.state import State

CHECKPOINT_FILE = "checkpoint.safetensors"
"""Its name in the folder of a run."""

SCHEMA = 1
"""Version of the fields of a checkpoint."""

LARGEST = 2**26
"""Bytes of a checkpoint, in any format; its arrays take less than one million."""

LARGEST_STEP = 2**31 - 1
"""Optax counts steps in 32 bits."""

_ANY = (-math.inf, math.inf)
_RANGES = {"loss": _ANY, "test_loss": _ANY, "test_accuracy": (0, 1), "seconds": (0, math.inf)}
"""Least and largest value of the fields of an epoch's record."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training between two steps: all that is needed to continue it, in either framework.

    Raises:
        CheckpointError: a field has a value that is not possible; names it.
    """

    recipe: Recipe
    """Without data_dir, which is dropped: on another machine the data may be elsewhere."""
    dataset_sha256: str | None
    """Digest of the images and labels that it trains and tests on; None if it is unknown."""
    state: State
    epoch: int
    """The current epoch, from 1; recipe.epochs + 1 when the training is done."""
    batch: int
    """Batches of this epoch that are done."""
    loss_sum: float
    """The sum of their losses."""
    epochs: tuple[Epoch, ...]
    """The records of the epochs before this one."""
    backend: str
    """The package that wrote it."""
    versions: dict[str, str]
    """Of the packages that it was computed with."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was made of the file of another program; not kept."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", dataclasses.replace(self.recipe, data_dir=None))
        _require_state(self.state, self.recipe)
        recipe, epoch, most = self.recipe, self.epoch, LARGEST_STEP
        if recipe.limit is not None:
            most = batch_count(recipe.limit, recipe.batch_size)
        _require_number("epoch", epoch, int, 1, recipe.epochs + 1)
        _require_number("batch", self.batch, int, 0, most if epoch <= recipe.epochs else 0)
        _require_number("loss_sum", self.loss_sum, float, *_ANY)
        if self.batch == 0 and self.loss_sum != 0:
            raise CheckpointError(f"loss_sum must be 0 before a batch, got {self.loss_sum}")
        if not isinstance(self.epochs, tuple) or len(self.epochs) != epoch - 1:
            wanted = f"the records of the {epoch - 1} before epoch {epoch}"
            raise CheckpointError(f"epochs must be {wanted}")
        for number, record in enumerate(self.epochs, start=1):
            _require_number("epoch of a record", record.epoch, int, number, number)
            for name, (least, most) in _RANGES.items():
                value = getattr(record, name)
                _require_number(f"{name} of epoch {number}", value, float, least, most)
        sha256 = self.dataset_sha256
        if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", str(sha256)):
            raise CheckpointError(f"dataset_sha256 must be 64 hexadecimal digits, got {sha256!r}")
        versions = self.versions if isinstance(self.versions, dict) else {None: None}
        if not all(isinstance(t, str) for t in (self.backend, *versions, *versions.values())):
            raise CheckpointError("backend and versions must be texts")

    def __str__(self) -> str:
        place = f"epoch {self.epoch}, {self.batch} batches of it done"
        if self.epoch > self.recipe.epochs:
            place = f"all {self.recipe.epochs} epochs done"
        return f"{self.recipe.dataset}, {self.recipe.dtype}, {place}, {self.state.step} steps made"

    def __repr__(self) -> str:
        return f"<Checkpoint {self}>"

    def to_json(self) -> dict[str, Any]:
        """Return everything but the state as JSON values, with a digest of all of it."""
        values = {**vars(self), "schema": SCHEMA, "recipe": self.recipe.to_json()}
        del values["state"], values["notes"]
        values["epochs"] = [dataclasses.asdict(record) for record in self.epochs]
        return {**values, "sha256": digest(values, self.state)}

    @classmethod
    def from_json(cls, values: Any, state: State) -> "Checkpoint":
        """Return the checkpoint of `to_json`; raise CheckpointError if anything was changed."""
        got = reprlib.repr(values.get("schema") if isinstance(values, dict) else values)
        if got != repr(SCHEMA):
            raise CheckpointError(f"schema is {got}, this version reads {SCHEMA}")
        given = {name: value for name, value in values.items() if name != "sha256"}
        if values.get("sha256") != digest(given, state):
            raise CheckpointError("its SHA-256 differs, something of it was changed")
        del given["schema"]
        try:
            given["epochs"] = tuple(Epoch(**record) for record in given["epochs"])
            given["recipe"] = Recipe.from_json(given["recipe"])
            return cls(**given, state=state, notes=())
        except (KeyError, TypeError) as error:
            reason = "a field is missing, unknown or of another kind"
            raise CheckpointError(f"{reason}: {error}") from None


def digest(values: dict[str, Any], state: State) -> str:
    """Return the SHA-256 of a state and of a checkpoint's other values, which must be JSON."""
    of_tensors = sha256_of(array for _, array in sorted(_to_tensors(state).items()))
    try:
        return hashlib.sha256(f"{of_tensors} {_to_text(values)}".encode()).hexdigest()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"its values are not JSON ({error})") from None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint: at any instant `path` is the one before, or the new one.

    OutputError: it cannot be written. CheckpointError: it has too many epochs to be read again.
    """
    content = _to_bytes(_to_tensors(checkpoint.state), checkpoint.to_json())
    if len(content) > LARGEST // 4:  # earlier versions read no more
        count = len(checkpoint.epochs)
        raise CheckpointError(f"the records of {count} epochs are too many to read")
    write_whole(path, content)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint from a file, or from the folder of a run.

    Raises:
        CheckpointError: a single byte is not as it was written, or it is not there; names the file.
    """
    file = path / CHECKPOINT_FILE if path.is_dir() else path
    with reading(file):
        content = content_of(file)
        tensors = safetensors.numpy.load(content)  # refuses lengths, places, types that do not fit
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        text = header.get("__metadata__", {}).get("checkpoint")
        if text is None or "step" not in tensors:
            raise CheckpointError("it has no metadata named checkpoint, or no tensor named step")
        values = json.loads(text)
        if _to_bytes(tensors, values) != content:  # nor does JSON mind a name twice, a space more
            raise CheckpointError("its bytes are not as they were written")
        step = int(tensors.pop("step"))
        return Checkpoint.from_json(values, State.from_named(tensors, step=step))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise CheckpointError, which names the file, whatever a damaged one makes a library raise."""
    try:
        if path.exists():
            yield
            return
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:
        kind = "" if isinstance(error, CnnParityError) else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())[:500]  # a hostile one is as long as it likes
        reason = "".join(c if c.isprintable() else "?" for c in reason)
        raise CheckpointError(
            f"{path} is not a checkpoint of this network: {reason}; use another checkpoint"
        ) from error
    raise CheckpointError(f"{path} is not there; use another checkpoint")


def content_of(path: Path) -> bytes:
    """Return the bytes of a checkpoint's file; raise CheckpointError for what cannot be one."""
    if path.is_dir():
        raise CheckpointError(
            "it is a folder; one of Orbax is read by jaxcnn, and made a file by parity convert"
            f" {path.name} {path.name}.safetensors"
        )
    if not path.is_file():
        raise CheckpointError("it is not a file")
    if path.stat().st_size > LARGEST:
        raise CheckpointError(f"it has more than {LARGEST} bytes")
    return path.read_bytes()


def _to_bytes(tensors: dict[str, np.ndarray], values: dict[str, Any]) -> bytes:
    return safetensors.numpy.save(tensors, {"checkpoint": _to_text(values)})


def _to_tensors(state: State) -> dict[str, np.ndarray]:
    arrays = {name: np.ascontiguousarray(array) for name, array in state.named().items()}
    return {**arrays, "step": np.array(state.step, dtype=np.int64)}


def _to_text(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _require_state(state: State, recipe: Recipe) -> None:
    if state.dtype != recipe.dtype:
        raise CheckpointError(f"the state is {state.dtype}, but the recipe asks for {recipe.dtype}")
    _require_number("step", state.step, int, 0, LARGEST_STEP)
    for name, array in state.named().items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"{name} has values that are not finite")


def _require_number(name: str, value: Any, kind: type, least: float, most: float) -> None:
    """Raise CheckpointError unless a value is a finite number in its range; True is none."""
    is_number = isinstance(value, int | kind) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max or not least <= value <= most:
        what = "an integer" if kind is int else "a finite number"
        raise CheckpointError(f"{name} must be {what} from {least} to {most}, got {value!r}")
