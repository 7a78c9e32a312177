import gzip
import hashlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.datasets import load_digits

from parity.contract.data import datasets
from parity.contract.data.datasets import (
    FILES,
    SOURCES,
    Dataset,
    Source,
    digits,
    find_files,
    pixels,
    read_dataset,
)
from parity.contract.errors import DataError
from tests.conftest import Write, arrays_of, idx_bytes


def same(a: Dataset, b: Dataset) -> bool:
    return all(
        np.array_equal(x, y) and x.dtype == y.dtype
        for x, y in zip(arrays_of(a).values(), arrays_of(b).values(), strict=True)
    )


@pytest.mark.parametrize("folder", ["", "MNIST/raw"])
@pytest.mark.parametrize("zipped", [False, True])
def test_files_are_read_flat_or_in_torchvisions_folder_gzipped_or_not(
    tmp_path: Path, tiny: Dataset, write_tiny: Write, folder: str, zipped: bool
) -> None:
    write_tiny(tmp_path / folder, zipped=zipped)
    assert same(read_dataset("mnist", tmp_path), tiny)


@pytest.mark.parametrize("zipped", [False, True])
def test_files_are_read_under_the_names_with_a_point(
    tmp_path: Path, tiny: Dataset, write_tiny: Write, zipped: bool
) -> None:
    """Mirrors and archives have them as train-images.idx3-ubyte."""
    write_tiny(tmp_path, zipped=zipped)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert (tmp_path / "train-images.idx3-ubyte").exists() is not zipped
    assert same(read_dataset("mnist", tmp_path), tiny)


def test_the_folder_comes_from_the_environment_unless_it_is_named(
    tmp_path: Path, tiny: Dataset, write_tiny: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNN_DATA_DIR", str(write_tiny(tmp_path / "environment")))
    assert same(read_dataset("mnist"), tiny)
    with pytest.raises(DataError, match="elsewhere"):
        read_dataset("mnist", tmp_path / "elsewhere")
    monkeypatch.delenv("CNN_DATA_DIR")
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "data")
    assert same(read_dataset("mnist"), tiny)


def test_a_missing_file_is_named(tmp_path: Path, write_tiny: Write) -> None:
    write_tiny(tmp_path)
    (tmp_path / f"{FILES[3]}.gz").unlink()
    with pytest.raises(DataError, match=f"not {FILES[3]}"):
        read_dataset("mnist", tmp_path)


@pytest.mark.parametrize("part", ["images", "labels"])
def test_what_a_library_decodes_wrongly_is_refused(
    tmp_path: Path, write_tiny: Write, part: str
) -> None:
    def decode(read: Dataset, _files: object) -> Dataset:
        test = replace(read.test, **{part: getattr(read.test, part)[::-1]})
        return replace(read, test=test)

    def download(*_: object) -> dict[str, Path]:
        pytest.fail("the files are there")

    write_tiny(tmp_path)
    with pytest.raises(DataError, match="mnist was decoded wrongly; reinstall it"):
        read_dataset("mnist", tmp_path, download=download, decode=decode, hint="reinstall it")


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert find_files(SOURCES["mnist"], tmp_path) is None


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_bit_is_refused_and_its_file_named(
    tmp_path: Path, tiny: Dataset, write_tiny: Write, file: str
) -> None:
    write_tiny(tmp_path)
    array = arrays_of(tiny)[file].copy()
    array.flat[5] ^= 1
    (tmp_path / f"{file}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    with pytest.raises(DataError, match=rf"{file}.*not mnist's original"):
        read_dataset("mnist", tmp_path)


def test_a_label_above_9_is_refused(tmp_path: Path, tiny: Dataset, write_tiny: Write) -> None:
    write_tiny(tmp_path, zipped=False)
    labels = tiny.train.labels.copy()
    labels[3] = 10
    (tmp_path / FILES[1]).write_bytes(idx_bytes(labels))
    with pytest.raises(DataError, match="label 10 at position 3"):
        read_dataset("mnist", tmp_path)


def test_sizes_that_disagree_are_refused(tmp_path: Path, tiny: Dataset, write_tiny: Write) -> None:
    write_tiny(tmp_path, zipped=False)
    (tmp_path / FILES[1]).write_bytes(idx_bytes(tiny.train.labels[:-1]))
    with pytest.raises(DataError, match=f"{FILES[1]} .* announces 39 values, expected 40"):
        read_dataset("mnist", tmp_path)


def test_without_digests_of_arrays_the_gzipped_files_own_digest_counts(
    tmp_path: Path, tiny_source: Source, write_tiny: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny(tmp_path)
    unknown = replace(tiny_source, array_sha256={}, gzip_sha256=dict.fromkeys(FILES, "0" * 64))
    monkeypatch.setitem(datasets.SOURCES, "mnist", unknown)
    with pytest.raises(DataError, match="not mnist's original"):
        read_dataset("mnist", tmp_path)
    original = {
        file: hashlib.sha256((tmp_path / f"{file}.gz").read_bytes()).hexdigest() for file in FILES
    }
    monkeypatch.setitem(datasets.SOURCES, "mnist", replace(unknown, gzip_sha256=original))
    assert len(read_dataset("mnist", tmp_path).train) == 40
    write_tiny(tmp_path / "unpacked", zipped=False)
    with pytest.raises(DataError, match=r"put the original train-images-idx3-ubyte\.gz there"):
        read_dataset("mnist", tmp_path / "unpacked")


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not a folder"):
        read_dataset("mnist", tmp_path / "file")


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_can_be_verified(name: str) -> None:
    source = SOURCES[name]
    known = source.array_sha256 or source.gzip_sha256
    assert list(known) == list(FILES)
    assert {len(digest) for digest in known.values()} == {64}


def test_digits_are_1797_images_of_28_by_28() -> None:
    dataset = digits()
    assert dataset.train.images.shape == (1437, 28, 28)
    assert dataset.test.images.shape == (360, 28, 28)
    assert set(dataset.train.labels) == set(range(10))
    image = dataset.train.images[0]
    assert (image[:2] == 0).all()
    assert (image[:, -2:] == 0).all()
    assert len(np.unique(image[2:5, 2:5])) == 1
    assert dataset.train.images.max() == 255


def test_digits_are_scikit_learns() -> None:
    bunch: Any = load_digits()
    dataset = digits()
    images = np.concatenate([dataset.train.images, dataset.test.images])
    np.testing.assert_array_equal(images[:, 2:26:3, 2:26:3], (bunch.images * 255 + 8) // 16)
    np.testing.assert_array_equal(
        np.concatenate([dataset.train.labels, dataset.test.labels]), bunch.target
    )


@pytest.mark.parametrize("damage", ["no scikit-learn", "no file", "cut", "other numbers"])
def test_digits_that_are_missing_or_damaged_are_an_error(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = (Path(sklearn.__file__).parent / "datasets/data/digits.csv.gz").read_bytes()
    content = {"cut": good[:-100], "other numbers": gzip.compress(b"1,2\n3,4\n")}.get(damage)
    if content is not None:
        (tmp_path / "datasets/data").mkdir(parents=True)
        (tmp_path / "datasets/data/digits.csv.gz").write_bytes(content)
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    spec = None if damage == "no scikit-learn" else found
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    reason = "which is not installed" if spec is None else "cannot read .* digits .*reinstall it"
    with pytest.raises(DataError, match=reason):
        digits()


def test_digits_with_another_pixel_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Path(sklearn.__file__).parent / "datasets/data/digits.csv.gz"
    other = gzip.decompress(good.read_bytes()).replace(b",5,", b",6,", 1)
    (tmp_path / "datasets/data").mkdir(parents=True)
    (tmp_path / "datasets/data/digits.csv.gz").write_bytes(gzip.compress(other))
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: found)
    with pytest.raises(DataError, match="not the known ones"):
        digits()


def test_a_limit_keeps_the_first_training_images(tiny: Dataset) -> None:
    limited = tiny.first(7)
    np.testing.assert_array_equal(limited.train.images, tiny.train.images[:7])
    np.testing.assert_array_equal(limited.test.images, tiny.test.images)
    assert tiny.first(None) is tiny
    with pytest.raises(DataError, match="--limit 40 or less"):
        tiny.first(41)


def test_pixels_are_divided_by_255_in_float32() -> None:
    greys = np.arange(256, dtype=np.uint8)
    images = np.zeros((1, 28, 28), np.uint8)
    images.flat[:256] = greys
    expected = [np.float32(grey) / np.float32(255) for grey in range(256)]
    single, double = pixels(images), pixels(images, "float64")
    assert single.shape == (1, 1, 28, 28)
    np.testing.assert_array_equal(single.flat[:256], expected)
    np.testing.assert_array_equal(double, single)
    assert (single.dtype, double.dtype) == (np.float32, np.float64)


def test_mnist_is_read_and_verified(mnist_dir: Path) -> None:
    dataset = read_dataset("mnist", mnist_dir)
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    assert list(dataset.train.labels[:5]) == [5, 0, 4, 1, 9]
