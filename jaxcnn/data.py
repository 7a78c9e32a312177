"""The data sets through TensorFlow Datasets, without TensorFlow."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from parity.contract.data.datasets import FILES, Dataset, Source, Split, read_dataset
from parity.contract.data.downloads import download_files, quiet_in_a_pipe, staging
from parity.contract.errors import DataError
from parity.contract.recipe import DatasetName


def load_dataset(name: DatasetName, data_dir: Path | None = None) -> Dataset:
    """Load a data set: uint8 images (N, 28, 28) and int64 labels (N,), in the files' order.

    The IDX files in `data_dir`, or downloaded into it if none is there, are verified each time. A
    DataError says which is missing, damaged or not the published one, or why a download failed.
    """
    hint = "remove $XDG_CACHE_HOME/cnn-parity, or ~/.cache/cnn-parity"
    return read_dataset(name, data_dir, download=_download, decode=_decode, hint=hint)


def _download(source: Source, directory: Path) -> dict[str, Path]:
    """Download the files with TFDS, from its own mirror."""
    import requests
    from tensorflow_datasets.core.download import DownloadError, DownloadManager
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.image_classification import mnist

    mirror = getattr(mnist, source.folder).URL
    urls = {file: f"{mirror}{file}.gz" for file in FILES}

    def fetch(folder: Path) -> dict[str, Path]:
        # TFDS tries again for minutes where there is no network: ask for one file first.
        requests.head(urls[FILES[0]], timeout=15).close()
        try:
            manager = DownloadManager(download_dir=folder)
            return {file: Path(manager.download(url)) for file, url in urls.items()}
        except (DownloadError, NonMatchingChecksumError) as error:
            raise ConnectionError(f"TFDS: {error}") from None

    return download_files(source, directory, fetch)


def _decode(read: Dataset, _files: dict[str, Path]) -> Dataset:
    """Decode a data set with TFDS, which prepares its own copy of it first, named by its digest."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnn-parity"
    prepared = cache / f"{read.name}-{read.sha256[:16]}"
    try:
        if not prepared.exists():
            with staging(cache) as folder, quiet_in_a_pipe():
                _builder(read, folder / prepared.name).download_and_prepare()
                (folder / prepared.name).rename(prepared)
    except OSError as error:
        if not prepared.exists():  # else another process has just prepared the same
            raise DataError(
                f"cannot prepare {read.name} for TFDS in {prepared}: {error.strerror or error};"
                " name a folder for it with XDG_CACHE_HOME"
            ) from None
    try:
        records = _builder(read, prepared).as_data_source()
        return Dataset(read.name, Split(**records["train"][0]), Split(**records["test"][0]))
    except Exception as error:  # noqa: BLE001 - TFDS, protobuf and Riegeli share no base class
        raise DataError(
            f"{prepared}, TFDS's copy of {read.name}, is damaged ({error}); remove it"
        ) from None


def _builder(read: Dataset, folder: Path) -> Any:
    """Return a TFDS data set of what four IDX files hold, in their order, that lies in `folder`."""
    # TFDS's own MNIST needs TensorFlow, shuffles, and takes seconds: it decodes record by record in
    # Python. Here a split is one record.
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_builders.adhoc_builder import AdhocBuilder

    class WithoutTensorFlow(AdhocBuilder, skip_registration=True):
        def _split_generators(self, dl_manager: object) -> Any:
            return {name: [(0, vars(getattr(read, name)))] for name in ("train", "test")}

    images = tfds.features.Tensor(
        shape=(None, 28, 28), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
    )
    labels = tfds.features.Tensor(shape=(None,), dtype=np.int64)
    return WithoutTensorFlow(
        name="idx_files",
        version="1.0.0",
        description=f"{read.name} as in its IDX files",
        features=tfds.features.FeaturesDict({"images": images, "labels": labels}),
        split_datasets={},
        data_dir=folder,
        file_format="array_record",
        disable_shuffling=True,
    )
