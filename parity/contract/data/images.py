"""Arrays in IDX files, which may hold anything, gzipped or not.

An IDX file is two zero bytes, a type code, the number of dimensions, their sizes, then the values.
"""

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np

from parity.contract.errors import DataError, os_errors_as

LARGEST = 2**30
"""Bytes of values: a million images."""


def read_idx(path: Path, *, shape: tuple[int | None, ...]) -> np.ndarray:
    """Read a uint8 array of a known shape, None for any size, from an IDX file, gzipped or not.

    Memory is taken as the values come, not on the word of the file. DataError names the file.
    """
    with os_errors_as(DataError, f"cannot read {path}"):
        try:
            with gzip.open(path) if is_gzipped(path) else path.open("rb") as file:
                return _read(file, shape)
        except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{path} is truncated, damaged or another kind of file ({error}); replace it with"
                " the original"
            ) from None


def _read(file: io.BufferedIOBase, shape: tuple[int | None, ...]) -> np.ndarray:
    magic = bytes([0, 0, 0x08, len(shape)])  # 0x08: uint8
    got = file.read(4)
    if got != magic:
        raise ValueError(f"its magic number is 0x{got.hex()}, expected 0x{magic.hex()}")
    header = file.read(4 * len(shape))
    if len(header) < 4 * len(shape):
        raise ValueError("it ends inside its header")
    announced = tuple(int(n) for n in np.frombuffer(header, dtype=">u4"))
    if any(n not in (None, got) for n, got in zip(shape, announced, strict=True)):
        raise ValueError(f"it announces {_times(announced)} values, expected {_times(shape)}")
    size = math.prod(announced)
    if size > LARGEST:
        raise ValueError(f"it announces {size} bytes of values, more than {LARGEST}")
    body = io.BytesIO()
    while part := file.read(min(2**24, size + 1 - body.tell())):  # it allocates that much at once
        body.write(part)
    if body.tell() != size:
        how = "is too long" if body.tell() > size else f"has {body.tell()}"
        raise ValueError(f"it announces {size} bytes of values but {how}")
    return np.frombuffer(body.getvalue(), dtype=np.uint8).reshape(announced)


def _times(shape: tuple[int | None, ...]) -> str:
    return "×".join("N" if n is None else str(n) for n in shape)


def is_gzipped(path: Path) -> bool:
    """Return whether a file begins as gzip files do, whatever its name says."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def unpacked(path: Path) -> bytes:
    """Return the content of an IDX file that `read_idx` has accepted, unzipped if it is gzipped."""
    content = path.read_bytes()
    return gzip.decompress(content) if is_gzipped(path) else content
