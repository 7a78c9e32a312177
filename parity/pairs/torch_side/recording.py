"""PyTorch's side of a pair as a file: its operations, its leaves and its inputs, and no code."""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.contract.errors import CnnParityError
from parity.contract.files import write_whole
from parity.pairs.mapping.leaves import Leaf

SCHEMA = 1

Step = dict[str, Any]
"""{op, args, kwargs, module, line}, an operation; or {seen, ref}, a tensor that goes into a layer
or comes out of it: seen is (layer, way, place, call), by which it is known from there on."""


class RecordingError(CnnParityError):
    """A file is no recording, or one of another version."""


@dataclass(frozen=True)
class Run:
    """What PyTorch computed, step by step."""

    steps: Sequence[Step]
    outputs: Sequence[Any]
    """References to the tensors that were returned."""
    constants: Sequence[str]
    """Types of the tensors that no operation made; their numbers are among the arrays."""


@dataclass(frozen=True)
class Recording:
    """A run of PyTorch's side, which can be made again from other leaves and inputs."""

    leaves: Sequence[Leaf]
    aliases: Mapping[str, Sequence[str]]
    calls: Mapping[str, str]
    """The layers that were called, in that order: name → class."""
    inputs: tuple[np.ndarray, ...]
    runs: Mapping[str, Run]
    """In float64 and in float32."""
    arrays: Mapping[str, np.ndarray]
    """The constants of the runs, as `float64.0`."""
    differentiable: bool
    """Whether the operations have the gradients that the model has."""


def write_recording(path: Path, recording: Recording) -> None:
    """Write a recording as .npz. OutputError: it cannot be written."""
    said = {
        "schema": SCHEMA,
        "leaves": [[leaf.name, leaf.kind, leaf.trained] for leaf in recording.leaves],
        "aliases": recording.aliases,
        "calls": recording.calls,
        "inputs": len(recording.inputs),
        "runs": {name: asdict(run) for name, run in recording.runs.items()},
        "differentiable": recording.differentiable,
    }
    arrays: dict[str, Any] = {f"constant:{name}": array for name, array in recording.arrays.items()}
    arrays |= {f"leaf:{leaf.name}": leaf.value for leaf in recording.leaves}
    arrays |= {f"input:{place}": array for place, array in enumerate(recording.inputs)}
    arrays["recording"] = np.frombuffer(json.dumps(said).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, **arrays)
    write_whole(path, file.getvalue())


_DAMAGED = (
    ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, RecursionError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_recording(path: Path) -> Recording:
    """Read a recording. RecordingError: there is none, or the file is not whole."""
    if not path.is_file():
        raise RecordingError(f"{path} is no file; --record FILE --side torch writes one")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return _parsed({name: file[name] for name in file.files})
    except _DAMAGED as error:
        raise RecordingError(
            f"{path} is no recording of this version, or not whole; make it anew with"
            " --record FILE --side torch"
        ) from error


def _parsed(arrays: Mapping[str, np.ndarray]) -> Recording:
    said = json.loads(arrays["recording"].tobytes())
    if said["schema"] != SCHEMA:
        raise ValueError(said["schema"])
    start = "constant:"
    runs = {name: Run(**said["runs"][name]) for name in ("float64", "float32")}
    needed = [f"{start}{name}.{i}" for name, run in runs.items() for i in range(len(run.constants))]
    if missing := [name for name in needed if name not in arrays]:
        raise KeyError(missing[0])
    if any(arrays[f"leaf:{name}"].dtype.kind != "f" for name, _, _ in said["leaves"]):
        raise TypeError("a leaf is no array of floats")
    return Recording(
        [Leaf(name, arrays[f"leaf:{name}"], kind, trained)
         for name, kind, trained in said["leaves"]],
        dict(said["aliases"]),
        dict(said["calls"]),
        tuple(arrays[f"input:{place}"] for place in range(said["inputs"])),
        runs,
        {name.removeprefix(start): x for name, x in arrays.items() if name.startswith(start)},
        said["differentiable"],
    )  # fmt: skip
