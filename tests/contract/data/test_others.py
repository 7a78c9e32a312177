"""MNIST in other forms than IDX files: Keras's archive is read, the others are named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parity.contract.backend import Backend
from parity.contract.cli.programs import main
from parity.contract.data.datasets import FILES, Dataset, read_dataset
from parity.contract.errors import DataError
from parity.truth.originals import original
from tests.conftest import Write
from tests.contract.data.test_datasets import same
from tests.truth.test_originals import agree


def keras(folder: Path, dataset: Dataset, **changes: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    arrays = {
        f"{letter}_{part}": getattr(getattr(dataset, part), name)
        for part in ("train", "test")
        for letter, name in (("x", "images"), ("y", "labels"))
    }
    np.savez_compressed(folder / "mnist.npz", **{**arrays, **changes})
    return folder


@pytest.mark.usefixtures("tiny_source", "no_network")
def test_kerass_archive_is_read_and_verified(
    backend: Backend, tiny: Dataset, tmp_path: Path
) -> None:
    folder = keras(tmp_path / "keras", tiny)
    assert same(backend.load_dataset("mnist", folder), tiny)
    assert agree(tiny, original("mnist", folder))


@pytest.mark.usefixtures("tiny_source")
def test_another_archive_is_refused_by_name(tiny: Dataset, tmp_path: Path) -> None:
    other = tiny.train.images.copy()
    other[3, 4, 5] ^= 1
    with pytest.raises(DataError, match=r"mnist\.npz is not mnist's original: .* of x_train"):
        read_dataset("mnist", keras(tmp_path, tiny, x_train=other))
    with pytest.raises(DataError, match=r"its y_test is int64 \(19,\), expected uint8 \(20,\)"):
        read_dataset("mnist", keras(tmp_path, tiny, y_test=tiny.test.labels[:-1]))
    with pytest.raises(DataError, match="damaged or another kind"):
        read_dataset("mnist", keras(tmp_path, tiny, x_test=np.array([{}])))
    (tmp_path / "mnist.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"mnist\.npz is damaged or another kind of file"):
        read_dataset("mnist", tmp_path)


def unpacked(folder: Path, write: Write) -> None:
    for path in list(write(folder, zipped=False).iterdir()):
        path.rename(folder / "there")
        path.mkdir()
        (folder / "there").rename(path / path.name)


def pictures(folder: Path) -> None:
    for digit in range(4):
        (folder / "train" / str(digit)).mkdir(parents=True)
        Image.new("L", (28, 28)).save(folder / "train" / str(digit) / "1.png")


def files(*names: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("x")

    return write


FOUND = {
    "CSV": (files("mnist_train.csv", "mnist_test.csv"), "mnist_test.csv, mnist_train.csv (CSV)"),
    "zipped CSV": (files("train.csv.zip"), "train.csv.zip (CSV)"),
    "Parquet": (files("mnist/train-00000.parquet"), "mnist/train-00000.parquet (Parquet)"),
    "PNG": (pictures, "train/2/1.png and 1 more (PNG)"),
    "an old torchvision": (files("MNIST/processed/training.pt"), "training.pt (torch.save)"),
    "a pickle": (files("mnist.pkl.gz"), "mnist.pkl.gz (pickle)"),
    "MATLAB": (files("mnist-original.mat"), "mnist-original.mat (MATLAB)"),
    "TFDS": (files("mnist/3.0.1/mnist-train.array_record-00000-of-00001"), "(ArrayRecord)"),
    "an archive": (files("archive.zip"), "archive.zip (an archive)"),
    "two": (files("a.csv", "b.parquet"), "a.csv (CSV); b.parquet (Parquet) instead"),
    "the files elsewhere": (files("some/where/train-images.idx3-ubyte"), "some/where: name it"),
    "gzipped elsewhere": (files("raw/train-images-idx3-ubyte.gz"), "raw: name it with --data-dir"),
}


@pytest.mark.parametrize(("write", "what"), FOUND.values(), ids=FOUND)
@pytest.mark.usefixtures("no_network")
def test_what_a_folder_holds_instead_is_said_and_how_to_get_the_four_files(
    backend: Backend,
    write: Callable[[Path], None],
    what: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(backend, "", ["train", "--data-dir", str(tmp_path), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert what in error
    assert f"put its four IDX files there ({FILES[0]}.gz and so on, from https://" in error
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_holds_nothing_instead(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset("mnist", tmp_path)
    assert "instead" not in str(caught.value)


def test_files_in_folders_of_their_names_are_read(
    tmp_path: Path, tiny: Dataset, write_tiny: Write
) -> None:
    """As an archive of a popular mirror unpacks."""
    unpacked(tmp_path, write_tiny)
    assert same(read_dataset("mnist", tmp_path), tiny)
