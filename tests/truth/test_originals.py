"""The second reader of the data sets sees the same as the first."""

from pathlib import Path

import numpy as np

from parity.contract.data.datasets import Dataset, read_dataset
from parity.truth.originals import LABELS, original
from tests.conftest import Write


def agree(dataset: Dataset, arrays: tuple[np.ndarray, ...]) -> bool:
    own = (dataset.train.images, dataset.train.labels, dataset.test.images, dataset.test.labels)
    return all(
        np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(own, arrays, strict=True)
    )


def test_digits() -> None:
    assert agree(read_dataset("digits"), original("digits", None))


def test_idx_files_zipped_or_not(write_tiny: Write, tmp_path: Path) -> None:
    for zipped in (True, False):
        folder = write_tiny(tmp_path / str(zipped), zipped=zipped)
        assert agree(read_dataset("mnist", folder), original("mnist", folder))


def test_the_counts_of_labels_are_those_of_the_sizes_published() -> None:
    sizes = {name: tuple(map(sum, counts)) for name, counts in LABELS.items()}
    assert sizes.pop("digits") == (1437, 360)
    assert set(sizes.values()) == {(60_000, 10_000)}
