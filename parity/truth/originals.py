"""The data sets read once more, by other code than the one that all subjects share."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from parity.contract.data.datasets import FILES, SOURCES, data_directory, find_files
from parity.contract.errors import DataError
from parity.contract.recipe import DatasetName

Array = np.ndarray

LABELS = {
    "mnist": (
        (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
    ),
    "digits": (
        (143, 146, 142, 146, 144, 145, 144, 143, 141, 143),
        (35, 36, 35, 37, 37, 37, 37, 36, 33, 37),
    ),
    "fashion_mnist": ((6000,) * 10, (1000,) * 10),
    "kmnist": ((6000,) * 10, (1000,) * 10),
}
"""How often each label occurs in the training and in the test split, as published."""


def original(name: DatasetName, data_dir: Path | None) -> tuple[Array, Array, Array, Array]:
    """Return images and labels for training, then for testing: uint8 (N, 28, 28) and int64 (N,).

    Raises:
        DataError: the data set is not there.
    """
    if name == "digits":
        return _digits()
    directory = data_directory(data_dir)
    files = find_files(SOURCES[name], directory)
    if files is None:
        raise DataError(f"{name} is not in {directory}; put its four IDX files there")
    train_images, train_labels, test_images, test_labels = (_idx(files[file]) for file in FILES)
    return (
        train_images.reshape(-1, 28, 28),
        train_labels.astype(np.int64),
        test_images.reshape(-1, 28, 28),
        test_labels.astype(np.int64),
    )


def _idx(path: Path) -> Array:
    """Return the bytes of an IDX file: 4 of magic, the last the number of sizes of 4 bytes."""
    content = path.read_bytes()
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])


def _digits() -> tuple[Array, Array, Array, Array]:
    """Return scikit-learn's rows of 64 grey values, 0 to 16, and a label."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError("digits comes with scikit-learn, which is not installed")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), delimiter=",")
    images = np.zeros((len(rows), 28, 28), np.uint8)
    for row in range(24):
        for column in range(24):
            grey = rows[:, 8 * (row // 3) + column // 3]
            images[:, 2 + row, 2 + column] = np.floor(255 * grey / 16 + 0.5)
    labels = rows[:, 64].astype(np.int64)
    return images[:1437], labels[:1437], images[1437:], labels[1437:]
