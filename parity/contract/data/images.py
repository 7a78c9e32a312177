"""Images to classify, from PNG or IDX files that may hold anything."""

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from parity.contract.data.idx import is_gzipped, read_idx
from parity.contract.errors import DataError, os_errors_as

_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_PNG = 2**20  # bytes; an image of 28 by 28 takes less than ten thousand
_WANTED = "28×28 pixels, white on black as MNIST's"


def read_images(path: Path) -> UInt8[np.ndarray, "images 28 28"]:
    """Read the images of a file: one of a PNG, any number of an IDX file, gzipped or not.

    A PNG may have any mode and becomes grey; what is transparent becomes black. DataError names a
    file that cannot be read, is damaged, or holds something else.
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
    except Exception as error:  # noqa: BLE001 - a damaged file may lead Pillow anywhere
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
