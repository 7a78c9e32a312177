"""Images and labels that a user brings in memory: checked once, for both backends alike."""

import inspect
from typing import TypeVar

import numpy as np
from jaxtyping import Int64, UInt8

from parity.contract.errors import DataError

CLASSES = 10
SIDE = 28
"""Pixels of an image, in width and height."""


def grey_values(images: object) -> UInt8[np.ndarray, "images 28 28"]:
    """Return images (N, 28, 28) of integers from 0 to 255 as uint8; raise DataError for others.

    Floats are refused, since nothing says whether they have been divided by 255.
    """
    array, wanted = _array("images", images), "expected integers from 0 to 255"
    if array.ndim != 3 or array.shape[1:] != (SIDE, SIDE):
        channels = array.shape[1:] in ((1, SIDE, SIDE), (SIDE, SIDE, 1))
        hint = "leave out the axis of one channel" if channels else "bring each to 28×28 pixels"
        raise DataError(f"images have the shape {array.shape}, expected (N, 28, 28); {hint}")
    if array.dtype.kind not in "iu":
        scaled = array.dtype.kind == "f" and array.size and 0 <= array.min() <= array.max() <= 1
        got, factor = (" from 0 to 1", "255 * ") if scaled else ("", "")
        hint = f"give numpy.uint8(numpy.round({factor}images))"
        raise DataError(f"images are {array.dtype}{got}, {wanted}; {hint}")
    _require_range("images have the value", array, 255, f"{wanted}; scale them to that")
    return array.astype(np.uint8, copy=False)


def classes(labels: object) -> Int64[np.ndarray, "examples"]:
    """Return labels (N,) of integers from 0 to 9 as int64; raise DataError for others."""
    array, wanted = _array("labels", labels), "expected integers from 0 to 9"
    if array.ndim != 1:
        hint = "give labels.argmax(axis=1)" if array.shape[1:] == (CLASSES,) else "one an image"
        raise DataError(f"labels have the shape {array.shape}, expected (N,); {hint}")
    if array.dtype.kind not in "iu":
        raise DataError(f"labels are {array.dtype}, {wanted}; give labels.astype(int)")
    _require_range("labels have the value", array, CLASSES - 1, f"{wanted}; number classes from 0")
    return array.astype(np.int64, copy=False)


Kind = TypeVar("Kind")


def of_kind(value: object, kind: type[Kind], name: str) -> Kind:
    """Return the value; raise DataError, which names the fields of `kind`, for another type."""
    if not isinstance(value, kind):
        got, wanted = type(value).__name__, kind.__name__
        fields = ", ".join(inspect.signature(kind).parameters)
        raise DataError(f"{name} is of type {got}, expected {wanted}; give {wanted}({fields})")
    return value


def _array(name: str, values: object) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged; or a tensor of a GPU
        raise DataError(f"{name} are no array ({error}); give a NumPy array") from None


def _require_range(what: str, array: np.ndarray, largest: int, hint: str) -> None:
    outside = (array < 0) | (array > largest)
    if outside.any():
        where = np.unravel_index(outside.argmax(), array.shape)
        place = ", ".join(str(index) for index in where)
        raise DataError(f"{what} {array[where]} at [{place}], {hint}")
