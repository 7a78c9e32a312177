"""Images in files that may hold anything: IDX, gzipped or not, and PNG.

An IDX file is two zero bytes, a type code, the number of dimensions, their sizes, then the values.
"""

import gzip
import io
import math
import warnings
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from parity.contract.errors import DataError, os_errors_as

LARGEST = 2**30
"""Bytes of values: a million images."""

_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_PNG = 2**20  # bytes; an image of 28 by 28 takes less than ten thousand
_WANTED = "28×28 pixels, white on black as MNIST's"


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


def read_images(path: Path) -> UInt8[np.ndarray, "images 28 28"]:
    """Read the images of a file: one of a PNG, any number of an IDX file, gzipped or not.

    A PNG becomes grey, what is transparent in it black. DataError names the file.
    """
    with os_errors_as(DataError, f"cannot read {path}"):
        with path.open("rb") as file:
            start = file.read(len(_PNG))
            content = start + file.read(_LARGEST_PNG) if start == _PNG else b""
        if not content and start[:2] != b"\0\0" and not is_gzipped(path):
            raise DataError(f"{path} is neither a PNG nor an IDX file; give images of {_WANTED}")
    images = _decode(path, content)[None] if content else read_idx(path, shape=(None, 28, 28))
    if len(images) == 0:
        raise DataError(f"{path} holds no image; give images of {_WANTED}")
    return images


def _decode(path: Path, content: bytes) -> UInt8[np.ndarray, "28 28"]:
    """Return the pixels of a PNG whose size and checksums are right."""
    if len(content) > _LARGEST_PNG:
        raise DataError(f"{path} has more than {_LARGEST_PNG} bytes; give an image of {_WANTED}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                size = image.size
                image.verify()
        if size == (28, 28):
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                return _grey(image)
    except Exception as error:  # noqa: BLE001 - of a damaged PNG Pillow raises SyntaxError, struct.error, ...
        damaged = f"{path} is a damaged PNG ({error})"
        raise DataError(f"{damaged}; give another image of {_WANTED}") from None
    raise DataError(f"{path} has {size[0]}×{size[1]} pixels; give an image of {_WANTED}")


def _grey(image: Image.Image) -> UInt8[np.ndarray, "28 28"]:
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut off at 255
        return (np.asarray(image) >> 8).astype(np.uint8)
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.array(image.convert("L"))
