"""Reader of safetensors files that trusts nothing it reads.

A safetensors file is the length of its header as a little-endian 64-bit integer, the header in
JSON, padded with spaces, and the tensors' bytes without gaps. What tensors there must be is known
beforehand, and with them the size of the file: it is compared before anything else is looked at.
"""

import json
import math
import os
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from parity.contract.errors import CheckpointError

LARGEST_HEADER = 2**24
"""Bytes; fifty thousand epochs have room in half of it."""

_LONGEST_REASON = 300
"""Characters; a hostile file may make it as long as itself."""
_LENGTH = 8
_ALIGNMENT = 8
_TYPES = {"float32": "F32", "float64": "F64", "int64": "I64"}


class Tensor(NamedTuple):
    """Type and shape of one tensor of a file."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


Layout = dict[str, Tensor]
"""All tensors of a file."""


def read_tensors(
    path: Path, *, layouts: Sequence[Layout]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a file that has exactly the tensors of one of `layouts`; return them and its metadata.

    Raises:
        CheckpointError: the file cannot be read, is damaged, or holds something else; names it.
    """
    try:
        if not path.is_file():
            raise MalformedError("is not there" if not path.exists() else "is not a file")
        with path.open("rb") as file:
            content = _within_size(file, layouts)
        metadata = _checked_header(content, layouts)
        return safetensors.numpy.load(content), metadata
    except MalformedError as error:
        raise unusable(path, error) from None
    except SafetensorError as error:
        raise unusable(path, f"is damaged ({error})") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None


class MalformedError(Exception):
    """The content is not the file that was expected; says what it is instead."""


def unusable(path: Path, reason: object) -> CheckpointError:
    """Return the error for a file that is no checkpoint, or a damaged one."""
    return CheckpointError(f"{path} {str(reason)[:_LONGEST_REASON]}; use another checkpoint")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON in which no name comes twice and every number is one.

    Raises:
        MalformedError: it is not such JSON.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"has no proper JSON in its header ({error})") from None


def _within_size(file: Any, layouts: Sequence[Layout]) -> bytes:
    """Read the file if its size is that of its header and the tensors of one of `layouts`."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(_LENGTH)
    length = int.from_bytes(start, "little")
    if len(start) < _LENGTH or length > LARGEST_HEADER:
        raise MalformedError("is not a safetensors file: it does not begin with its header's size")
    possible = [_LENGTH + length + _bytes(layout) for layout in layouts]
    if size not in possible:
        raise MalformedError(
            f"has {size} bytes, expected {' or '.join(map(str, possible))}: it was cut, or is not"
            " of this network"
        )
    content = start + file.read(size - _LENGTH)
    if len(content) != size:
        raise MalformedError("is being written to")
    return content


def _checked_header(content: bytes, layouts: Sequence[Layout]) -> dict[str, str]:
    """Return the metadata of a header that has a right length."""
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    header = content[_LENGTH:end]
    fields = parse_json(header)
    if not isinstance(fields, dict):
        raise MalformedError("has no table of tensors in its header")
    _require_compact(header, fields)
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise MalformedError("has metadata that are not texts")
    layout = next(layout for layout in layouts if end + _bytes(layout) == len(content))
    _require_layout(fields, layout)
    return metadata


def _require_compact(header: bytes, fields: dict[str, Any]) -> None:
    """Refuse a header that no writer writes: with other white space, or in another spelling."""
    try:
        compact = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        raise MalformedError("has a damaged header") from None
    padding = len(header) - len(compact)
    if not 0 <= padding < _ALIGNMENT or header != compact + b" " * padding:
        raise MalformedError("has a damaged header")


def _require_layout(fields: dict[str, Any], layout: Layout) -> None:
    """Check names, then types and shapes, then that the tensors fill the file without a gap."""
    missing = [name for name in layout if name not in fields]
    unknown = [name for name in fields if name not in layout]
    if missing or unknown:
        raise MalformedError(
            f"has other tensors than expected: missing {reprlib.repr(missing)},"
            f" unknown {reprlib.repr(unknown)}"
        )
    for name, (dtype, shape) in layout.items():
        keys = {"dtype": _TYPES[dtype], "shape": list(shape)}
        entry = fields[name]
        if not isinstance(entry, dict) or set(entry) != {*keys, "data_offsets"}:
            raise MalformedError(f"does not say type, shape and place of {name}")
        got = {key: entry[key] for key in keys}
        if got != keys:
            raise MalformedError(f"has {name} as {reprlib.repr(got)}, expected {keys}")
    end = 0
    for name in sorted(layout, key=lambda name: _begin(fields[name]["data_offsets"])):
        if fields[name]["data_offsets"] != [end, end + layout[name].size]:
            raise MalformedError("has tensors that overlap, or gaps between them")
        end += layout[name].size


def _begin(offsets: object) -> int:
    return offsets[0] if isinstance(offsets, list) and offsets and type(offsets[0]) is int else -1


def _bytes(layout: Layout) -> int:
    return sum(tensor.size for tensor in layout.values())


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name comes twice")
    return fields


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number")
    return number
