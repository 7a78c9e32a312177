"""SHA-256 of arrays: equal on two machines if the arrays are."""

import hashlib
from collections.abc import Iterable

import numpy as np


def sha256_of(arrays: Iterable[np.ndarray]) -> str:
    """Return the digest of the arrays' types, shapes and values, whatever the machine's order."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
