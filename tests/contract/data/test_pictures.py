"""Pictures of any size and kind are prepared as MNIST's images were."""

import importlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from parity.contract.cli.console import drawn
from parity.contract.cli.programs import main
from parity.contract.data.datasets import digits
from parity.contract.data.pictures import BOX, SIZE, Pictures, prepared, read_images
from parity.contract.errors import DataError
from parity.contract.recipe import Recipe
from parity.contract.run.checkpoint import write_checkpoint
from parity.contract.state import initial_state
from tests.checkpoints import checkpoint
from tests.conftest import idx_bytes


def seven(size: int = 280, *, paper: int = 0, ink: int = 255) -> Image.Image:
    """A seven in the upper left part of a sheet, larger pixels for larger sheets."""
    pixels = np.full((28, 28), paper, np.uint8)
    pixels[3:5, 4:14] = ink
    for row in range(5, 17):
        pixels[row, 14 - (row - 3) // 2 : 16 - (row - 3) // 2] = ink
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST)


def kept(folder: Path, image: Image.Image, kind: str = "PNG", **options: Any) -> Path:
    path = folder / "image"
    image.save(path, kind, **options)
    return path


def box(image: np.ndarray) -> tuple[int, int]:
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def assert_like_mnists(images: np.ndarray) -> None:
    """One image, 20 pixels along its longer side, centred by mass, from black to white."""
    [image] = images
    assert (image.shape, image.dtype, image.max()) == ((SIZE, SIZE), np.uint8, 255)
    assert max(box(image)) == BOX
    for axis in (0, 1):
        mass = image.sum(axis=1 - axis, dtype=float)
        centre = (np.arange(SIZE) * mass).sum() / mass.sum()
        assert abs(centre - (SIZE - 1) / 2) <= 0.5


def photo() -> Image.Image:
    """Blue ink on grey paper, in uneven light, with noise."""
    stream = np.random.RandomState(0)
    ink = np.asarray(seven(300)).astype(float)[..., None] / 255
    light = np.linspace(0.8, 1, 300)[None, :, None]
    paper = np.array([210, 205, 200]) * light * (1 - ink) + np.array([40, 50, 120]) * ink
    noisy = np.clip(paper + stream.normal(0, 4, paper.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).filter(ImageFilter.GaussianBlur(1))


def on_nothing(colour: int) -> Image.Image:
    image = Image.new("LA", (280, 280), (colour, 0))
    image.putalpha(seven())
    return image


READ: dict[str, tuple[Callable[[], Image.Image], str, dict[str, Any], bool]] = {
    "larger": (seven, "PNG", {}, False),
    "smaller": (lambda: seven(18), "PNG", {}, False),
    "not square": (lambda: seven().crop((0, 0, 200, 280)), "PNG", {}, False),
    "JPEG": (seven, "JPEG", {}, False),
    "JPEG, progressive": (seven, "JPEG", {"progressive": True, "quality": 30}, False),
    "colour": (lambda: seven().convert("RGB"), "PNG", {}, False),
    "CMYK": (lambda: seven().convert("CMYK"), "JPEG", {}, False),
    "palette": (lambda: seven().convert("P"), "GIF", {}, False),
    "BMP": (seven, "BMP", {}, False),
    "WebP": (seven, "WEBP", {"lossless": True}, False),
    "TIFF": (seven, "TIFF", {}, False),
    "black on white": (lambda: seven(paper=255, ink=0), "JPEG", {}, True),
    "pencil": (lambda: seven(paper=230, ink=120), "PNG", {}, True),
    "a photograph": (photo, "JPEG", {}, True),
    "white on nothing": (lambda: on_nothing(255), "PNG", {}, False),
    "black on nothing": (lambda: on_nothing(0), "PNG", {}, True),
}


@pytest.mark.parametrize(("image", "kind", "options", "invert"), READ.values(), ids=READ)
def test_a_picture_becomes_what_mnist_would_have_made_of_it(
    image: Callable[[], Image.Image],
    kind: str,
    options: dict[str, Any],
    invert: bool,
    tmp_path: Path,
) -> None:
    images, notes = read_images(kept(tmp_path, image(), kind, **options), invert=invert)
    assert_like_mnists(images)
    assert "prepared as MNIST's images were" in notes[-1]
    assert len(notes) == 1
    upright = prepared(np.asarray(seven(280)))
    overlap = np.minimum(upright, images[0]).sum() / np.maximum(upright, images[0]).sum()
    assert overlap > 0.5  # the same seven, the same way up


def test_a_picture_that_a_phone_holds_sideways_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by 90 degrees to see it
    sideways = seven().transpose(Image.Transpose.ROTATE_90)
    images, _ = read_images(kept(tmp_path, sideways, "JPEG", exif=exif, quality=100))
    upright = prepared(np.asarray(seven()))
    assert np.abs(images[0].astype(int) - upright).mean() < 8


def test_what_is_28_by_28_stays_as_it_is(tmp_path: Path) -> None:
    own = np.asarray(seven(28))
    images, notes = read_images(kept(tmp_path, seven(28)))
    np.testing.assert_array_equal(images, own[None])
    assert notes == ()
    images, _ = read_images(kept(tmp_path, seven(28, paper=255, ink=0)), invert=True)
    np.testing.assert_array_equal(images, own[None])


@pytest.mark.parametrize("size", [28, 280])
def test_black_on_white_is_said_with_the_option_that_helps(size: int, tmp_path: Path) -> None:
    path = kept(tmp_path, seven(size, paper=255, ink=0))
    assert "looks like black on white" in read_images(path).notes[0]
    assert read_images(path).notes[0].endswith("give --invert")
    assert not any("black on white" in note for note in read_images(path, invert=True).notes)
    turned = read_images(kept(tmp_path, seven(size)), invert=True)
    assert turned.notes[0].endswith("leave out --invert")


def test_an_idx_file_of_black_on_white_is_inverted(tmp_path: Path) -> None:
    path = tmp_path / "digits"
    path.write_bytes(idx_bytes(255 - digits().test.images[:3]))
    got: Pictures = read_images(path, invert=True)
    np.testing.assert_array_equal(got.images, digits().test.images[:3])
    assert "give --invert" in read_images(path).notes[0]


def cut(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()[:-600]


REFUSED = {
    "JPEG, cut": (lambda: cut(photo()), "damaged JPEG"),
    "HEIC": (lambda: b"\0\0\0\x18ftypheic" + b"\0" * 99, "HEIC or AVIF picture; export it as JPEG"),
    "PDF": (lambda: b"%PDF-1.7", "neither a picture nor an IDX file"),
    "SVG": (lambda: b"<svg/>", "neither a picture nor an IDX file"),
    "TIFF of nothing": (lambda: b"II*\0", "damaged TIFF"),
    "not WebP": (lambda: b"RIFF\0\0\0\0WAVE", "damaged WEBP"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_picture_is_refused_by_name(
    content: Callable[[], bytes], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    path.write_bytes(content())
    with pytest.raises(DataError, match=reason) as caught:
        read_images(path)
    assert str(caught.value).startswith(f"{path} is ")


def test_an_image_is_drawn_with_two_characters_a_pixel() -> None:
    image = np.array([[0, 255, 0], [128, 0, 0]], np.uint8)
    assert drawn(image) == ["  @@", "++"]
    assert all(len(line) <= 2 * SIZE for line in drawn(digits().test.images[0]))


@pytest.mark.parametrize("program", ["torchcnn", "jaxcnn"])
def test_predict_shows_the_digit_as_the_network_sees_it(
    program: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(dataset="digits", epochs=3, device="cpu")
    write_checkpoint(Path("c.safetensors"), checkpoint(recipe=recipe, state=initial_state(0)))
    kept(tmp_path, seven(paper=255, ink=0), "JPEG")
    backend: Any = importlib.import_module(program)
    options = ["predict", "image", "--checkpoint", "c.safetensors", "--show", "--invert"]
    assert main(backend, "", options) == 0
    captured = capsys.readouterr()
    *lines, result = captured.out.splitlines()
    seen = read_images(Path("image"), invert=True).images[0]
    assert lines == drawn(seen)
    assert result.startswith("image: ")
    assert captured.err == (
        "note: image: 280×280 pixels, prepared as MNIST's images were; see --show\n"
    )
