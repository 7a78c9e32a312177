"""The data sets: what they must contain, where their files may lie, and how they become numbers."""

import dataclasses
import functools
import hashlib
import importlib.util
import os
import tomllib
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8

from parity.contract.data.arrays import classes, grey_values, of_kind
from parity.contract.data.images import is_gzipped, read_idx
from parity.contract.data.others import found_instead, read_npz
from parity.contract.errors import DataError
from parity.contract.recipe import DatasetName, DType

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def sha256_of(arrays: Iterable[np.ndarray]) -> str:
    """Return the digest of the arrays' types, shapes and values, whatever the machine's order."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """Images and their labels, of any integer type; kept as uint8 and int64.

    Raises:
        DataError: shapes, types or values are others, their numbers differ, or there are none.
    """

    images: UInt8[np.ndarray, "examples 28 28"]
    """Grey values, 0 to 255."""
    labels: Int64[np.ndarray, "examples"]
    """Classes, 0 to 9."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", grey_values(self.images))
        object.__setattr__(self, "labels", classes(self.labels))
        if len(self.images) != len(self.labels):
            counts = f"{len(self.images)} images but {len(self.labels)} labels"
            raise DataError(f"there are {counts}; give each image its label")
        if len(self.images) == 0:
            raise DataError("there are no images; give at least one, with its label")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"<Split {len(self)} images>"


@dataclass(frozen=True)
class Dataset:
    """A training and a test split, in the order of the original files.

    Raises:
        DataError: one of the two is no `Split`.
    """

    name: str
    train: Split
    test: Split

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            of_kind(getattr(self, name), Split, name)

    def __repr__(self) -> str:
        return f"<Dataset {self.name}, {len(self.train)} + {len(self.test)} images>"

    @functools.cached_property
    def sha256(self) -> str:
        """The digest of all images and labels, as 64 hexadecimal digits."""
        return sha256_of(a for split in (self.train, self.test) for a in vars(split).values())

    def first(self, limit: int | None) -> "Dataset":
        """Return it with the first `limit` training images only, or all for None; or DataError."""
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
    mirror: str
    """Where its makers' files can be downloaded."""
    train_size: int = 60_000
    test_size: int = 10_000
    gzip_sha256: dict[str, str] = field(default_factory=dict)
    """By file, the published SHA-256 of the file as it is distributed, gzipped."""
    array_sha256: dict[str, str] = field(default_factory=dict)
    """By file, the SHA-256 of the values as uint8. Where it is known, gzip_sha256 is not needed."""


_TABLE = Path(__file__).with_name("sources.toml").read_text(encoding="utf-8")
SOURCES = {name: Source(name=name, **fields) for name, fields in tomllib.loads(_TABLE).items()}


def data_directory(data_dir: Path | str | None) -> Path:
    """Return the folder to look in: the one given, else $CNN_DATA_DIR, else ./data."""
    return Path(data_dir or os.environ.get("CNN_DATA_DIR") or "data")


def find_files(source: Source, directory: Path) -> dict[str, Path] | None:
    """Return where the four files, gzipped or not, lie: `directory`, its FOLDER/raw, or None."""
    if directory.exists() and not directory.is_dir():
        raise DataError(f"{directory} is not a folder; name the folder of the IDX files")
    for base in (directory, directory / source.folder / "raw"):
        found = {}
        for file in FILES:
            names = (file, file.replace("-idx", ".idx"))
            candidates = [base / f"{name}{end}" for end in (".gz", "") for name in names]
            candidates += [base / name / name for name in names]  # as some archives unpack
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
    """Read and verify the four files in plain NumPy; raise DataError, which names the file."""
    arrays = {}
    for file, path in files.items():
        size = source.train_size if file.startswith("train") else source.test_size
        array = read_idx(path, shape=(size, 28, 28) if "images" in file else (size,))
        if "labels" in file and array.max() > 9:
            where = int(np.argmax(array > 9))
            raise DataError(
                f"{path} has label {array[where]} at position {where}; labels are 0 to 9:"
                " replace it with the original file"
            )
        if source.array_sha256:
            published, content = source.array_sha256[file], array.data
        elif is_gzipped(path):
            published, content = source.gzip_sha256[file], path.read_bytes()
        else:
            raise DataError(
                f"{path} cannot be verified: of {source.name} only the gzipped files have a"
                f" published SHA-256; put the original {file}.gz there"
            )
        if hashlib.sha256(content).hexdigest() != published:
            raise DataError(
                f"{path} is not {source.name}'s original: its SHA-256 differs; replace the file,"
                " or name the data set that it belongs to with --dataset"
            )
        arrays[file] = array.astype(np.int64) if "labels" in file else array
    pairs = FILES[:2], FILES[2:]
    splits = (Split(arrays[images], arrays[labels]) for images, labels in pairs)
    return Dataset(source.name, *splits)


_NPZ = {
    file: f"{'x' if 'images' in file else 'y'}_{'train' if file.startswith('train') else 'test'}"
    for file in FILES
}
"""The arrays of Keras's mnist.npz, by the file that has the same values."""


def read_npz_dataset(source: Source, directory: Path) -> Dataset | None:
    """Read and verify NAME.npz, as Keras distributes mnist; None if it is not in the folder."""
    path = directory / f"{source.name}.npz"
    if not source.array_sha256 or not path.is_file():
        return None
    sizes = {file: source.train_size if "train" in file else source.test_size for file in FILES}
    shapes = {_NPZ[f]: (n, 28, 28) if "images" in f else (n,) for f, n in sizes.items()}
    arrays = read_npz(path, shapes)
    for file, name in _NPZ.items():
        if hashlib.sha256(arrays[name].data).hexdigest() != source.array_sha256[file]:
            raise DataError(
                f"{path} is not {source.name}'s original: the SHA-256 of {name} differs;"
                " replace the file, or put the four IDX files there"
            )
    train, test = (
        Split(arrays[f"x_{part}"], arrays[f"y_{part}"].astype(np.int64))
        for part in ("train", "test")
    )
    return Dataset(source.name, train, test)


def how_to_get(source: Source, directory: Path) -> str:
    """Return what to do where the files are not in a folder, and what it holds instead."""
    return (
        f"put its four IDX files there ({FILES[0]}.gz and so on, from {source.mirror})"
        f"{found_instead(directory, FILES)}"
    )


def read_dataset(
    name: DatasetName,
    data_dir: Path | None = None,
    *,
    download: Callable[[Source, Path], dict[str, Path]] = lambda *_: {},
    decode: Callable[[Dataset, dict[str, Path]], Dataset] | None = None,
    hint: str = "",
) -> Dataset:
    """Read a data set from its files in plain NumPy, or through a library, which must agree.

    `download` brings the files to the folder if none is there, and returns where each lies;
    `decode` returns what the library reads in them, given what NumPy has read; `hint` is what helps
    if a byte differs. `digits` needs no files. DataError: it is not there, or not the original.
    """
    if name == "digits":
        return digits()
    source, directory = SOURCES[name], data_directory(data_dir)
    files = find_files(source, directory)
    if not files and (archived := read_npz_dataset(source, directory)):
        return archived
    files = files or download(source, directory)
    if not files:
        raise DataError(f"{name} is not in {directory}; {how_to_get(source, directory)}")
    read = read_files(source, files)
    if decode is None:
        return read
    decoded = decode(read, files)
    if decoded.sha256 != read.sha256:
        raise DataError(f"{name} was decoded wrongly; {hint}")
    return decoded


def digits() -> Dataset:
    """Return scikit-learn's bundled 1,797 handwritten digits (UCI optdigits) as 28×28 images.

    Each of the 8×8 pixels (0 to 16) is scaled to 0 to 255, repeated 3×3 times and padded by 2.
    scikit-learn is not imported: that would take longer than all of this.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("digits comes with scikit-learn, which is not installed")
    try:
        file = Path(spec.submodule_search_locations[0], "datasets/data/digits.csv.gz")
        table = np.loadtxt(file, np.int64, delimiter=",")
        values, labels = table[:, :64].reshape(1797, 8, 8), np.ascontiguousarray(table[:, 64])
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataError(f"cannot read scikit-learn's digits ({error}); reinstall it") from None
    grey = (values * 255 + 8) // 16
    images = np.pad(grey.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    images, size = images.astype(np.uint8), 1437
    train, test = Split(images[:size], labels[:size]), Split(images[size:], labels[size:])
    dataset = Dataset("digits", train, test)
    if dataset.sha256 != "7e577dc90722c814587cdcc0e3f16ec67efce3b146ee3faf3f780dc51a2a089e":
        raise DataError("scikit-learn's digits are not the known ones; reinstall it")
    return dataset


def pixels(
    images: UInt8[np.ndarray, "batch 28 28"], dtype: DType = "float32"
) -> Float[np.ndarray, "batch 1 28 28"]:
    """Return the network's input: grey values divided by 255 in float32, in canonical layout.

    Multiplying by 1/255 instead differs in the last bit for half of the values.
    """
    return np.divide(images[:, None], np.float32(255), dtype=np.float32).astype(dtype, copy=False)
