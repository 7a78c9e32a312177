"""Images of 28×28 pixels come from PNG and IDX files as they are."""

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from parity.contract.data.pictures import read_images
from parity.contract.errors import DataError
from tests.conftest import idx_bytes

GREY = np.random.RandomState(0).randint(0, 256, (28, 28)).astype(np.uint8)


def png(image: Any, mode: str | None = None, **options: Any) -> bytes:
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(buffer, "PNG", **options)
    return buffer.getvalue()


def read(folder: Path, content: bytes) -> np.ndarray:
    path = folder / "image"
    path.write_bytes(content)
    return read_images(path).images


def same(got: np.ndarray, expected: np.ndarray) -> None:
    assert (got.dtype, got.shape[1:]) == (np.uint8, (28, 28))
    np.testing.assert_array_equal(got, expected)


def transparent() -> Image.Image:
    """White ink on white that is not there."""
    image = Image.new("LA", (28, 28), (255, 0))
    image.paste((255, 255), (3, 4, 9, 10))
    return image


INK = np.zeros((28, 28), np.uint8)
INK[4:10, 3:9] = 255

KINDS = {
    "grey": (lambda: png(GREY), GREY),
    "RGB": (lambda: png(GREY, "RGB"), GREY),
    "RGBA": (lambda: png(GREY, "RGBA"), GREY),
    "palette": (lambda: png(Image.fromarray(GREY).convert("P")), GREY),
    "black and white": (lambda: png(Image.fromarray(INK).convert("1")), INK),
    "16 bits": (lambda: png(GREY.astype(np.uint16) * 257), GREY),
    "transparent": (lambda: png(transparent()), INK),
    "a transparent colour": (lambda: png(Image.fromarray(INK), transparency=255), INK * 0),
    "interlaced, with text": (lambda: png(GREY, dpi=(72, 72)), GREY),
}


@pytest.mark.parametrize(("content", "expected"), KINDS.values(), ids=KINDS)
def test_a_png_of_any_kind_becomes_grey(
    content: Callable[[], bytes], expected: np.ndarray, tmp_path: Path
) -> None:
    same(read(tmp_path, content()), expected[None])


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("zipped", [False, True])
def test_an_idx_file_holds_any_number(count: int, zipped: bool, tmp_path: Path) -> None:
    images = np.stack([GREY] * count)
    content = idx_bytes(images)
    same(read(tmp_path, gzip.compress(content) if zipped else content), images)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, pixels: bytes, *more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(pixels))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


BOMB = zlib.compress(b"\0" * 10**8, 9)

REFUSED = {
    "280×280 of nothing": (
        lambda: png(Image.new("L", (280, 280))), "shows nothing: its 280×280 .* give --invert"
    ),
    "a bomb of pixels": (lambda: png_of(10**5, 10**5, b""), "damaged PNG|100000×100000"),
    "a bomb beyond counting": (lambda: png_of(2**31 - 1, 2**31 - 1, b""), "damaged PNG"),
    "a bomb of text": (lambda: png_of(28, 28, b"", chunk(b"zTXt", b"a\0\0" + BOMB)), "damaged PNG"),
    "a bomb of colours": (
        lambda: png_of(28, 28, b"", chunk(b"iCCP", b"a\0\0" + BOMB)), "damaged PNG"
    ),
    "no pixels": (lambda: png_of(28, 28, b""), "damaged PNG"),
    "a byte of pixels": (lambda: png_of(28, 28, b"\0"), "damaged PNG"),
    "cut": (lambda: png(GREY)[:200], "damaged PNG"),
    "no end": (lambda: png(GREY)[:-12], "damaged PNG"),
    "nothing but the magic": (lambda: png(GREY)[:8], "damaged PNG"),
    "a large file": (lambda: png(GREY) + b"\0" * 2**26, "has more than 67108864 bytes"),
    "JPEG": (lambda: b"\xff\xd8\xff\xe0" + b"\0" * 99, "damaged JPEG"),
    "text": (lambda: b"seven", "neither a picture nor an IDX file; give a PNG, JPEG or IDX file"),
    "empty": (lambda: b"", "neither a picture nor an IDX file"),
    "IDX of labels": (lambda: idx_bytes(GREY[0]), "magic number"),
    "IDX of other sizes": (lambda: idx_bytes(GREY[None, :, :27]), "1×28×27 .* expected N×28×28"),
    "IDX of none": (lambda: idx_bytes(GREY[:0, None].repeat(28, 1)), "holds no image"),
    "IDX cut": (lambda: idx_bytes(GREY[None])[:-1], "announces 784 bytes of values but has 783"),
    "IDX of gigabytes": (
        lambda: bytes([0, 0, 8, 3]) + struct.pack(">III", 2**32 - 1, 28, 28), "more than 1073741824"
    ),
    "IDX of half a gigabyte": (
        lambda: bytes([0, 0, 8, 3]) + struct.pack(">III", 10**6, 28, 28) + b"\0" * 99, "but has 99"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_image_is_refused_by_name(
    content: Callable[[], bytes], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read(tmp_path, content())
    assert str(caught.value).startswith(f"{tmp_path / 'image'} ")


@pytest.mark.parametrize("where", ["missing", "folder"])
def test_a_file_that_cannot_be_read_is_named(where: str, tmp_path: Path) -> None:
    path = tmp_path if where == "folder" else tmp_path / "image"
    with pytest.raises(DataError, match=f"cannot read {path}: "):
        read_images(path)


@given(place=st.integers(8, len(png(GREY)) - 1), mask=st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_png_with_a_changed_byte_is_refused_or_the_same(
    tmp_path_factory: pytest.TempPathFactory, place: int, mask: int
) -> None:
    """Each chunk has a checksum."""
    content = bytearray(png(GREY))
    content[place] ^= mask
    folder = tmp_path_factory.mktemp("png")
    try:
        got = read(folder, bytes(content))
    except DataError:
        return
    same(got, GREY[None])
