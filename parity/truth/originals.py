"""The data sets read once more, by other code than the one that all subjects share."""

import gzip
import importlib.util
import tomllib
from pathlib import Path

import numpy as np

from parity.contract.data.datasets import FILES, SOURCES, data_directory, find_files
from parity.contract.errors import DataError
from parity.contract.recipe import DatasetName

LABELS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
"""How often each label occurs in the training and in the test split, by data set."""


def original(name: DatasetName, data_dir: Path | None) -> tuple[np.ndarray, ...]:
    """Return images, uint8 (N, 28, 28), and labels, int64 (N,): train, then test; or DataError."""
    if name == "digits":
        return _digits()
    directory = data_directory(data_dir)
    files, archive = find_files(SOURCES[name], directory), directory / f"{name}.npz"
    if files is None and archive.is_file():  # Keras's, with the same values
        with np.load(archive, allow_pickle=False) as held:
            arrays = [held[array] for array in ("x_train", "y_train", "x_test", "y_test")]
        return tuple(x if x.ndim == 3 else x.astype(np.int64) for x in arrays)
    if files is None:
        raise DataError(f"{name} is not in {directory}; put its four IDX files there")
    return tuple(_idx(files[file]) for file in FILES)


def _idx(path: Path) -> np.ndarray:
    """Read an IDX file: 4 bytes of magic, the last the number of sizes of 4 bytes that follow."""
    content = path.read_bytes()
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    return values.reshape(-1, 28, 28) if content[3] == 3 else values.astype(np.int64)


def _digits() -> tuple[np.ndarray, ...]:
    """Read scikit-learn's rows of 64 grey values, 0 to 16, and a label."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError("digits comes with scikit-learn, which is not installed")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), delimiter=",")
    images = np.zeros((len(rows), 28, 28), np.uint8)
    for row, column in np.ndindex(24, 24):
        grey = rows[:, 8 * (row // 3) + column // 3]
        images[:, 2 + row, 2 + column] = np.floor(255 * grey / 16 + 0.5)
    labels = rows[:, 64].astype(np.int64)
    return images[:1437], labels[:1437], images[1437:], labels[1437:]
