"""MNIST in other forms than four IDX files: one is read, of the rest it is said what they are."""

import itertools
import zipfile
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np

from parity.contract.data.images import LARGEST
from parity.contract.errors import DataError, os_errors_as

_KINDS = {
    ".npz": "NumPy", ".npy": "NumPy", ".csv": "CSV", ".tsv": "CSV", ".parquet": "Parquet",
    ".arrow": "Arrow", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".pt": "torch.save",
    ".mat": "MATLAB", ".pkl": "pickle", ".h5": "HDF5", ".tfrecord": "TFRecord",
    ".array_record": "ArrayRecord", ".zip": "an archive", ".tar": "an archive",
    ".tgz": "an archive", ".7z": "an archive", ".rar": "an archive",
}  # fmt: skip
"""What a file is, by the endings of its name."""

_MOST = 20_000
"""Files that are looked at."""


def found_instead(directory: Path, files: tuple[str, ...]) -> str:
    """Return what a folder holds instead of the IDX `files`, as the end of a message."""
    by_kind: defaultdict[str, list[Path]] = defaultdict(list)
    names = {end for name in files for end in (name, name.replace("-idx", ".idx"))}
    for path in itertools.islice(directory.rglob("*"), _MOST):
        if path.name.removesuffix(".gz") in names and path.is_file():
            return f"; they are in {path.parent}: name it with --data-dir"
        kind = next((_KINDS[end] for end in _endings(path) if end in _KINDS), None)
        if kind and path.is_file():
            by_kind[kind].append(path.relative_to(directory))
    if not by_kind:
        return ""
    parts = []
    for kind, paths in sorted(by_kind.items()):
        named = ", ".join(map(str, sorted(paths)[:3]))
        parts.append(f"{named}{f' and {len(paths) - 3} more' * (len(paths) > 3)} ({kind})")
    return f"; it holds {'; '.join(parts)} instead, which is not read"


def _endings(path: Path) -> list[str]:
    return [end.partition("-")[0].lower() for end in path.suffixes]  # .array_record-00000-of-00001


_DAMAGED = (ValueError, KeyError, EOFError, MemoryError, RuntimeError, AttributeError, TypeError,
            zipfile.BadZipFile, zlib.error)  # fmt: skip
"""What zipfile and NumPy raise for an archive that is not whole, or not of arrays."""


def read_npz(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return arrays of uint8 by name from NumPy's archive; a DataError names the file."""
    arrays = {}
    with os_errors_as(DataError, f"cannot read {path}"):
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                    raise ValueError(f"it unpacks to more than {LARGEST} bytes")
            with np.load(path, allow_pickle=False) as held:
                for name, shape in shapes.items():
                    array = held[name]
                    if array.shape != shape or not np.array_equal(array, array.astype(np.uint8)):
                        raise ValueError(
                            f"its {name} is {array.dtype} {array.shape}, expected uint8 {shape}"
                        )
                    arrays[name] = np.ascontiguousarray(array, dtype=np.uint8)
        except _DAMAGED as error:
            raise DataError(f"{path} is damaged or another kind of file ({error})") from None
    return arrays
