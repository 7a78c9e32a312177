"""The data sets through TensorFlow Datasets, without TensorFlow."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager
from tensorflow_datasets.core.download import util as download_utils
from tensorflow_datasets.image_classification import mnist

from parity.contract.data.datasets import (
    FILES,
    SOURCES,
    Dataset,
    Source,
    Split,
    data_directory,
    digits,
    find_files,
    read_files,
    require_same,
)
from parity.contract.data.downloads import download_files, quiet_in_a_pipe, staging
from parity.contract.errors import DataError
from parity.contract.recipe import DatasetName


def load_dataset(name: DatasetName, data_dir: Path | None = None) -> Dataset:
    """Load a data set: uint8 images (N, 28, 28) and int64 labels (N,), in the files' order.

    The IDX files are read where they lie in `data_dir`; if none is there they are downloaded into
    it first. What is loaded is verified each time.

    Raises:
        DataError: a file is missing, damaged or not the published one, or the download failed.
    """
    if name == "digits":
        return digits()
    source, directory = SOURCES[name], data_directory(data_dir)
    files = find_files(source, directory) or _download(source, directory)
    read = read_files(source, files)
    prepared = _prepared(read)
    return require_same(_decode(read, prepared), read, hint=f"remove {prepared}")


def _download(source: Source, directory: Path) -> dict[str, Path]:
    """Download the files with TFDS, from its own mirror."""
    mirror = getattr(mnist, source.folder).URL
    urls = {file: f"{mirror}{file}.gz" for file in FILES}

    def fetch(folder: Path) -> dict[str, Path]:
        # TFDS tries again for minutes where there is no network: ask for one file first.
        requests.head(urls[FILES[0]], timeout=15).close()
        try:
            manager = tfds.download.DownloadManager(download_dir=folder)
            return {file: Path(manager.download(url)) for file, url in urls.items()}
        except _TFDS_ERRORS as error:
            raise ConnectionError(f"TFDS: {error}") from None

    return download_files(source, directory, fetch)


_TFDS_ERRORS = (download_utils.DownloadError, download_manager.NonMatchingChecksumError)


def _decode(read: Dataset, prepared: Path) -> Dataset:
    """Decode a data set with TFDS, which prepares its own copy of it first."""
    if not prepared.exists():
        _prepare(read, prepared)
    try:
        records: Any = _IdxFiles(read, data_dir=prepared).as_data_source()
        return Dataset(read.name, _stack(records["train"]), _stack(records["test"]))
    except Exception as error:  # noqa: BLE001 - TFDS, protobuf and Riegeli have each their own
        raise DataError(
            f"{prepared}, TFDS's copy of {read.name}, is damaged ({error}); remove it"
        ) from None


def _prepare(read: Dataset, prepared: Path) -> None:
    try:
        with staging(prepared.parent) as folder, quiet_in_a_pipe():
            _IdxFiles(read, data_dir=folder / prepared.name).download_and_prepare()
            (folder / prepared.name).rename(prepared)
    except OSError as error:
        if prepared.exists():
            return  # another process has just prepared the same
        raise DataError(
            f"cannot prepare {read.name} for TFDS in {prepared}: {error.strerror or error};"
            " name a folder for it with XDG_CACHE_HOME"
        ) from None


def _prepared(read: Dataset) -> Path:
    """Return the folder of TFDS's copy: in $XDG_CACHE_HOME/cnn-parity or ~/.cache/cnn-parity.

    It is named after the digest of its content, so that it serves wherever the files lie, read-only
    folders included.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256()
    for split in (read.train, read.test):
        digest.update(split.images.data)
        digest.update(split.labels.data)
    return cache / "cnn-parity" / f"{read.name}-{digest.hexdigest()[:16]}-by-{_EXAMPLES}"


_EXAMPLES = 1000
"""In a record."""


class _IdxFiles(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS data set of what four IDX files hold, in their order.

    TFDS's own MNIST needs TensorFlow to be prepared, and shuffles the examples. It decodes record
    by record in Python, which takes seconds for 70,000; here a record has many examples.
    """

    name = "idx_files"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, dataset: Dataset, *, data_dir: Path) -> None:
        self._dataset = dataset
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "images": tfds.features.Tensor(
                shape=(None, 28, 28), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
            ),
            "labels": tfds.features.Tensor(shape=(None,), dtype=np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self._dataset.name} as in its IDX files",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {
            "train": self._generate_examples(self._dataset.train),
            "test": self._generate_examples(self._dataset.test),
        }

    def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
        for start in range(0, len(split), _EXAMPLES):
            part = slice(start, start + _EXAMPLES)
            yield start, {"images": split.images[part], "labels": split.labels[part]}


def _stack(records: Any) -> Split:
    """Return all records of a TFDS data source as two arrays."""
    parts = records.__getitems__(range(len(records)))
    images, labels = (np.concatenate([part[key] for part in parts]) for key in ("images", "labels"))
    return Split(images, labels)
