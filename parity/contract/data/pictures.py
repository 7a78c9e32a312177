"""Pictures of digits, brought to the form of MNIST's images.

MNIST's makers fitted each digit into a box of 20×20 pixels, with grey edges, and put its centre of
mass into the middle of 28×28 pixels, white on black (LeCun et al. 1998).
"""

import io
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from parity.contract.data.images import is_gzipped, read_idx
from parity.contract.errors import DataError, os_errors_as

SIZE, BOX = 28, 20
"""Pixels along a side: of an image, and of the box that a digit fills."""

_FORMATS = {
    b"\x89PNG\r\n\x1a\n": ("PNG",),
    b"\xff\xd8\xff": ("JPEG", "MPO"),  # MPO: a phone's JPEG with a second picture behind
    b"BM": ("BMP",),
    b"GIF8": ("GIF",),
    b"RIFF": ("WEBP",),
    b"II*\0": ("TIFF",),
    b"MM\0*": ("TIFF",),
}
_LARGEST = 2**26
"""Bytes of a file."""
_MOST_PIXELS = 2**26
_WANTED = "give a PNG, JPEG or IDX file"


class Pictures(NamedTuple):
    """The images of a file."""

    images: UInt8[np.ndarray, "images 28 28"]
    """Grey values, 0 to 255."""
    notes: tuple[str, ...]
    """What was made of them, and what they look like; for a reader."""


def read_images(path: Path, *, invert: bool = False) -> Pictures:
    """Read the images of a file: one of a picture, any number of an IDX file, gzipped or not.

    Colours become grey, what is transparent the background. `invert` is for black on white. A
    picture of 28×28 pixels is taken as it is, one of another size prepared as MNIST's were.
    DataError names the file.
    """
    with os_errors_as(DataError, f"cannot read {path}"), path.open("rb") as file:
        start = file.read(8)
        formats = next((f for magic, f in _FORMATS.items() if start.startswith(magic)), ())
        content = start + file.read(_LARGEST) if formats else b""
    if formats:
        return _picture(path, content, formats, invert=invert)
    with os_errors_as(DataError, f"cannot read {path}"):
        if start[:2] != b"\0\0" and not is_gzipped(path):
            what = " (HEIC: export it as JPEG)" if b"ftyp" in start else ""
            raise DataError(f"{path} is neither a picture nor an IDX file{what}; {_WANTED}")
        if b"ftyp" in start:
            raise DataError(f"{path} is a HEIC or AVIF picture; export it as JPEG")
    images = read_idx(path, shape=(None, SIZE, SIZE))
    if len(images) == 0:
        raise DataError(f"{path} holds no image; {_WANTED}")
    images = 255 - images if invert else images
    return Pictures(images, _on_white(images, invert=invert))


def _picture(path: Path, content: bytes, formats: tuple[str, ...], *, invert: bool) -> Pictures:
    if len(content) > _LARGEST:
        raise DataError(f"{path} has more than {_LARGEST} bytes; save it smaller")
    try:
        grey = _decoded(content, formats, background="white" if invert else "black")
    except Exception as error:  # noqa: BLE001 - of a damaged file Pillow raises SyntaxError, struct.error, ...
        damaged = f"{path} is a damaged {formats[0]} ({error})"
        raise DataError(f"{damaged}; {_WANTED}, saved anew") from None
    grey = 255 - grey if invert else grey
    notes = _on_white(grey[None], invert=invert)
    if grey.shape != (SIZE, SIZE):
        height, width = grey.shape
        if grey.min() == grey.max():
            hint = "" if invert else "; if it is black on transparent, give --invert"
            raise DataError(f"{path} shows nothing: its {width}×{height} pixels are alike{hint}")
        grey = prepared(grey)
        notes = (*notes, f"{width}×{height} pixels, prepared as MNIST's images were; see --show")
    return Pictures(grey[None], notes)


def _decoded(
    content: bytes, formats: tuple[str, ...], *, background: str
) -> UInt8[np.ndarray, "height width"]:
    """Return the grey values of a picture whose checksums, where it has some, are right."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content), formats=formats) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(
                    f"{image.width}×{image.height} are more than {_MOST_PIXELS} pixels"
                )
            image.verify()
        with Image.open(io.BytesIO(content), formats=formats) as image:
            return _grey(ImageOps.exif_transpose(image), background)


def _grey(image: Image.Image, background: str) -> UInt8[np.ndarray, "height width"]:
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut off at 255
        return (np.asarray(image) >> 8).astype(np.uint8)
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, background)
        image = Image.alpha_composite(opaque, image.convert("RGBA"))
    return np.array(image.convert("L"))


def _on_white(images: UInt8[np.ndarray, "images h w"], *, invert: bool) -> tuple[str, ...]:
    """Say so if most of the frame of most images is bright."""
    edges = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    bright = np.median(edges, axis=1) > 127
    if bright.mean() <= 0.5:
        return ()
    hint = "leave out --invert" if invert else "give --invert"
    return (f"looks like black on white, and MNIST's digits are white on black; {hint}",)


def prepared(grey: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "28 28"]:
    """Return a digit, white on black, of any size as MNIST has it.

    The frame's median becomes black, the brightest pixel white, and what is below Otsu's threshold
    (1979) black; what is left is fitted into the box, and its centre of mass into the middle.
    """
    frame = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    values = np.clip(grey.astype(float) - np.median(frame), 0, None)
    if not values.any():  # nothing is brighter than the frame
        values = grey.astype(float)
    values *= 255 / values.max()
    ink = np.where(values > _otsu(values), values, 0)
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(digit.shape)
    height, width = (max(1, round(n * scale)) for n in digit.shape)
    smooth = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(digit.astype(np.float32)).resize((width, height), smooth))
    small = small * (255 / small.max())
    image = np.zeros((SIZE, SIZE))
    top, left = (_centred(small, axis) for axis in (0, 1))
    image[top : top + height, left : left + width] = small
    return np.rint(image).astype(np.uint8)


def _centred(digit: np.ndarray, axis: int) -> int:
    """Return where a digit begins, if its centre of mass is to be in the middle and all inside."""
    mass = digit.sum(axis=1 - axis)
    centre = (np.arange(len(mass)) * mass).sum() / mass.sum()
    return int(np.clip(round((SIZE - 1) / 2 - centre), 0, SIZE - len(mass)))


def _otsu(values: np.ndarray) -> float:
    """Return the grey value that divides the pixels into two classes of least variance inside."""
    counts = np.bincount(np.rint(values).astype(int).ravel(), minlength=256)
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * np.arange(256))
    above = total - below
    inside = (below > 0) & (above > 0)
    means = sums[inside] / below[inside], (sums[-1] - sums[inside]) / above[inside]
    between = below[inside] * above[inside] * (means[0] - means[1]) ** 2
    return float(np.flatnonzero(inside)[between.argmax()])
