"""The data sets: what they must contain, where their files may lie, and how they become numbers."""

import dataclasses
import functools
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, UInt8

from parity.contract.data.idx import is_gzipped, read_idx
from parity.contract.errors import DataError
from parity.contract.files.digests import sha256_of
from parity.contract.recipe import DatasetName, DType

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class Split:
    """Images and their labels."""

    images: UInt8[np.ndarray, "examples 28 28"]
    """Grey values, 0 to 255."""
    labels: Int64[np.ndarray, "examples"]
    """Classes, 0 to 9."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A training and a test split, in the order of the original files."""

    name: str
    train: Split
    test: Split

    @functools.cached_property
    def sha256(self) -> str:
        """The digest of all images and labels, as 64 hexadecimal digits."""
        splits = self.train, self.test
        return sha256_of(array for split in splits for array in (split.images, split.labels))

    def first(self, limit: int | None) -> "Dataset":
        """Return the data set with only the first `limit` training images; all for None.

        Raises:
            DataError: there are fewer.
        """
        if limit is None:
            return self
        if limit > len(self.train):
            raise DataError(
                f"limit is {limit}, but {self.name} has {len(self.train)} training images;"
                f" use --limit {len(self.train)} or less"
            )
        train = Split(self.train.images[:limit], self.train.labels[:limit])
        return dataclasses.replace(self, train=train)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is known beforehand about a data set that comes as four IDX files."""

    name: str
    folder: str
    """torchvision's name for it: the files may lie in FOLDER/raw."""
    train_size: int = 60_000
    test_size: int = 10_000
    gzip_sha256: dict[str, str] = field(default_factory=dict)
    """By file, the published SHA-256 of the file as it is distributed, gzipped."""
    array_sha256: dict[str, str] = field(default_factory=dict)
    """By file, the SHA-256 of the values as uint8. Where it is known, gzip_sha256 is not needed."""

    def shape(self, file: str) -> tuple[int, ...]:
        """Return the shape of the array in one of FILES."""
        size = self.train_size if file.startswith("train") else self.test_size
        return (size, 28, 28) if "images" in file else (size,)


SOURCES = {
    "mnist": Source(
        name="mnist",
        folder="MNIST",
        array_sha256={
            FILES[0]: "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            FILES[1]: "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
            FILES[2]: "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
            FILES[3]: "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
        },
    ),
    "fashion_mnist": Source(
        name="fashion_mnist",
        folder="FashionMNIST",
        gzip_sha256={
            FILES[0]: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            FILES[1]: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            FILES[2]: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            FILES[3]: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
    ),
    "kmnist": Source(
        name="kmnist",
        folder="KMNIST",
        gzip_sha256={
            FILES[0]: "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            FILES[1]: "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            FILES[2]: "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            FILES[3]: "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        },
    ),
}


def data_directory(data_dir: Path | str | None) -> Path:
    """Return the folder to look in: the one given, else $CNN_DATA_DIR, else ./data."""
    return Path(data_dir or os.environ.get("CNN_DATA_DIR") or "data")


def find_files(source: Source, directory: Path) -> dict[str, Path] | None:
    """Return where the four files lie in `directory` or its FOLDER/raw; None if none is there.

    A gzipped file goes before an unpacked one.

    Raises:
        DataError: some of the files are there and others are not, or it is not a folder.
    """
    if directory.exists() and not directory.is_dir():
        raise DataError(f"{directory} is not a folder; name the folder of the IDX files")
    for base in (directory, directory / source.folder / "raw"):
        found = {}
        for file in FILES:
            candidates = (base / f"{file}.gz", base / file)
            if path := next((path for path in candidates if path.is_file()), None):
                found[file] = path
        missing = [file for file in FILES if file not in found]
        if not missing:
            return found
        if found:
            raise DataError(
                f"{base} holds some files of {source.name} but not {', '.join(missing)};"
                " put all four there, gzipped or not"
            )
    return None


def read_files(source: Source, files: dict[str, Path]) -> Dataset:
    """Read and verify the four files in plain NumPy.

    Checks format, size, that labels are 0 to 9, and the SHA-256: of the arrays where it is known,
    else of the gzipped file: nobody publishes one for unpacked Fashion-MNIST or KMNIST.

    Raises:
        DataError: a file is damaged or not the published one; names it.
    """
    arrays = {}
    for file, path in files.items():
        array = read_idx(path, shape=source.shape(file))
        if "labels" in file and array.max() > 9:
            where = int(np.argmax(array > 9))
            raise DataError(
                f"{path} has label {array[where]} at position {where}; labels are 0 to 9:"
                " replace it with the original file"
            )
        if source.array_sha256:
            original = hashlib.sha256(array.data).hexdigest() == source.array_sha256[file]
        else:
            if not is_gzipped(path):
                raise DataError(
                    f"{path} cannot be verified: of {source.name} only the gzipped files have a"
                    f" published SHA-256; put the original {file}.gz there"
                )
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            original = sha256 == source.gzip_sha256[file]
        if not original:
            raise DataError(
                f"{path} is not {source.name}'s original: its SHA-256 differs; replace the file,"
                " or name the data set that it belongs to with --dataset"
            )
        arrays[file] = array.astype(np.int64) if "labels" in file else array
    train_images, train_labels, test_images, test_labels = (arrays[file] for file in FILES)
    return Dataset(source.name, Split(train_images, train_labels), Split(test_images, test_labels))


def read_dataset(name: DatasetName, data_dir: Path | None = None) -> Dataset:
    """Read a data set that is on disk in plain NumPy.

    Raises:
        DataError: it is missing, damaged or not the published one.
    """
    if name == "digits":
        return digits()
    source, directory = SOURCES[name], data_directory(data_dir)
    files = find_files(source, directory)
    if files is None:
        raise DataError(f"{name} is not in {directory}; put its four IDX files there")
    return read_files(source, files)


def require_same(decoded: Dataset, read: Dataset, *, hint: str) -> Dataset:
    """Return what a library decoded if it is, to the byte, what the files hold.

    Raises:
        DataError: it is not; `hint` says what to do.
    """
    for split, name in ((decoded.train, "training"), (decoded.test, "test")):
        truth = read.train if name == "training" else read.test
        for got, expected in ((split.images, truth.images), (split.labels, truth.labels)):
            if got.dtype != expected.dtype or not np.array_equal(got, expected):
                raise DataError(f"{read.name}: the {name} split was decoded wrongly; {hint}")
    return decoded


def digits() -> Dataset:
    """Return scikit-learn's bundled 1,797 handwritten digits (UCI optdigits) as 28×28 images.

    Each of the 8×8 pixels (0 to 16) is scaled to 0 to 255, repeated 3×3 times and padded by 2.
    The first 1,437 images are the training split, the other 360 the test split.
    """
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    grey = (bunch.images.astype(np.int64) * 255 + 8) // 16
    images = np.pad(grey.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    images, labels = images.astype(np.uint8), bunch.target.astype(np.int64)
    size = 1437
    return Dataset(
        "digits", Split(images[:size], labels[:size]), Split(images[size:], labels[size:])
    )


def pixels(
    images: UInt8[np.ndarray, "batch 28 28"], dtype: DType = "float32"
) -> Float[np.ndarray, "batch 1 28 28"]:
    """Return the network's input: grey values divided by 255, in canonical layout.

    The division is done once, in float32, so that every backend computes from the same bytes:
    multiplying by 1/255 instead differs in the last bit for half of the values.
    """
    return np.divide(images[:, None], np.float32(255), dtype=np.float32).astype(dtype, copy=False)
