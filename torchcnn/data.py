"""The data sets through torchvision."""

import importlib
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import torch

from parity.contract.data.datasets import FILES, SOURCES, Dataset, Source, Split, read_dataset
from parity.contract.data.downloads import download_files
from parity.contract.data.images import unpacked
from parity.contract.interrupts import cleaning_up
from parity.contract.recipe import DatasetName


def load_dataset(name: DatasetName, data_dir: Path | None = None) -> Dataset:
    """Load a data set: uint8 images (N, 28, 28) and int64 labels (N,), in the files' order.

    The IDX files in `data_dir`, or downloaded into it if none is there, are verified each time. A
    DataError says which is missing, damaged or not the published one, or why a download failed.
    """
    hint = "reinstall torchvision"
    return read_dataset(name, data_dir, download=_download, decode=_decode, hint=hint)


def _download(source: Source, directory: Path) -> dict[str, Path]:
    """Download the files with torchvision, from its own mirrors."""
    library = getattr(torchvision_datasets(), source.folder)

    def fetch(folder: Path) -> dict[str, Path]:
        try:
            library(folder, download=True)
        except RuntimeError as error:
            raise ConnectionError(f"torchvision: {error}") from None
        return {file: folder / source.folder / "raw" / f"{file}.gz" for file in FILES}

    return download_files(source, directory, fetch)


def _decode(read: Dataset, files: dict[str, Path]) -> Dataset:
    """Decode the files with torchvision, which wants them unpacked and in a folder of its own."""
    library = getattr(torchvision_datasets(), SOURCES[read.name].folder)
    with cleaning_up(), tempfile.TemporaryDirectory() as root:
        raw = Path(root) / SOURCES[read.name].folder / "raw"
        raw.mkdir(parents=True)
        for file, path in files.items():
            (raw / file).write_bytes(unpacked(path))
        parts = [library(root, train=train) for train in (True, False)]
    return Dataset(read.name, *(Split(p.data.numpy(), p.targets.numpy()) for p in parts))


_declared: list[torch.library.Library] = []
"""Keeps the schemas alive that `torchvision_datasets` declares."""


def torchvision_datasets() -> ModuleType:
    """Import `torchvision.datasets`, also from a CUDA build beside a PyTorch without CUDA.

    Such a build cannot load its compiled operators, and its import fails because it refers to them.
    Their schemas are declared then, one at a time as the import asks for them; the data sets use
    none of them.
    """
    missing = re.compile(r"operator torchvision::(\w+) does not exist")
    while True:
        try:
            return importlib.import_module("torchvision.datasets")
        except RuntimeError as error:
            match = missing.search(str(error))
            if match is None:
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{match[1]}() -> ()")
            _declared.append(library)
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
