"""Checkpoints for the tests: real ones, and forged ones that a writer would never write."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.contract.errors import CheckpointError
from parity.contract.recipe import DType, Recipe
from parity.contract.run.checkpoint import Checkpoint, digest, write_checkpoint
from parity.contract.run.history import Epoch
from parity.contract.state import PARAMETERS, State


def random_state(seed: int, dtype: DType = "float32", step: int = 31) -> State:
    stream = np.random.RandomState(seed)
    params, adam_m, adam_v = (
        {name: stream.rand(*shape).astype(dtype) for name, (shape, _) in PARAMETERS.items()}
        for _ in range(3)
    )
    return State(params=params, adam_m=adam_m, adam_v=adam_v, step=step)


def record(number: int) -> Epoch:
    return Epoch(epoch=number, loss=278.862, test_loss=0.1, test_accuracy=0.97, seconds=1.5)


def checkpoint(seed: int = 0, dtype: DType = "float32", **changes: Any) -> Checkpoint:
    fields = {
        "recipe": Recipe(dataset="digits", epochs=3, device="cpu", mode="eager", dtype=dtype),
        "dataset_sha256": "0123456789abcdef" * 4,
        "state": random_state(seed, dtype),
        "epoch": 2,
        "batch": 8,
        "loss_sum": 1 / 3,
        "epochs": (record(1),),
        "backend": "torchcnn",
        "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
    }
    return Checkpoint(**{**fields, **changes})


def assert_same(a: Checkpoint, b: Checkpoint) -> None:
    """Compare at tolerance 0: every field, and every array to the bit."""
    assert a.to_json() == b.to_json()
    assert a.state.step == b.state.step
    for group in ("params", "adam_m", "adam_v"):
        for name in PARAMETERS:
            x, y = getattr(a.state, group)[name], getattr(b.state, group)[name]
            assert (x.dtype, x.tobytes()) == (y.dtype, y.tobytes())


def unpack(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a safetensors file into its header and its data."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def pack(header: str | bytes, data: bytes) -> bytes:
    """Return a safetensors file with a header that may say anything."""
    text = header.encode() if isinstance(header, str) else header
    return len(text).to_bytes(8, "little") + text + data


def compact(fields: Any) -> str:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def signed(change: Callable[[dict[str, Any]], object], **fields: Any) -> dict[str, Any]:
    """Return what a checkpoint says, with a change and the right digest."""
    real = checkpoint(**fields)
    values = real.to_json()
    del values["sha256"]
    change(values)
    return {**values, "sha256": digest(values, real.state)}


def forge(folder: Path, change: Callable[[dict[str, Any]], object], **fields: Any) -> Path:
    """Write a checkpoint that says something else than could be, with the right digest."""
    values = signed(change, **fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "to_json", lambda self: values)
        write_checkpoint(folder / "forged", checkpoint(**fields))
    return folder / "forged"


def refused(message: str = ".") -> Any:
    return pytest.raises(CheckpointError, match=message)
