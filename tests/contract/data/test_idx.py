import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parity.contract.data.images import read_idx, unpacked
from parity.contract.errors import DataError
from tests.conftest import idx_bytes

IMAGES = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)


def read(folder: Path, content: bytes, shape: tuple[int | None, ...] = IMAGES.shape) -> np.ndarray:
    path = folder / "file"
    path.write_bytes(content)
    return read_idx(path, shape=shape)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, max_side=9)), st.booleans())
def test_what_was_written_is_read(tmp_path_factory, array: np.ndarray, zipped: bool) -> None:
    content = idx_bytes(array)
    folder = tmp_path_factory.mktemp("idx")
    got = read(folder, gzip.compress(content) if zipped else content, array.shape)
    np.testing.assert_array_equal(got, array)
    assert unpacked(folder / "file") == content


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, zipped: bool) -> None:
    content = idx_bytes(IMAGES)
    content = gzip.compress(content) if zipped else content
    for length in [*range(40), *range(40, len(content), 97), len(content) - 1]:
        with pytest.raises(DataError, match="file"):
            read(tmp_path, content[:length])


@pytest.mark.parametrize("byte", range(16))
def test_a_changed_header_is_refused(tmp_path: Path, byte: int) -> None:
    content = bytearray(idx_bytes(IMAGES))
    content[byte] ^= 0x21
    with pytest.raises(DataError, match="replace it"):
        read(tmp_path, bytes(content))


@pytest.mark.parametrize("length", [4, 6, 8, 15])
def test_a_file_that_ends_inside_its_header_is_refused_in_plain_words(
    tmp_path: Path, length: int
) -> None:
    with pytest.raises(DataError, match="it ends inside its header"):
        read(tmp_path, idx_bytes(IMAGES)[:length])


def test_bytes_after_the_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too long"):
        read(tmp_path, idx_bytes(IMAGES) + b"\0")


def test_a_header_that_announces_gigabytes_costs_nothing(tmp_path: Path) -> None:
    content = bytes([0, 0, 8, 3]) + b"\xff" * 12
    with pytest.raises(DataError, match="announces 4294967295×4294967295×4294967295"):
        read(tmp_path, content)


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_idx(tmp_path, shape=(1,))


@given(
    cut=st.integers(0, len(idx_bytes(IMAGES)) + 9),
    flips=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 255)), max_size=3),
    zipped=st.booleans(),
    known=st.booleans(),
)
def test_damage_is_refused_or_leaves_the_shape(
    tmp_path_factory, cut: int, flips: list[tuple[int, int]], zipped: bool, known: bool
) -> None:
    """Cut, lengthened, with bytes changed in or behind the header, gzipped or not."""
    content = bytearray(idx_bytes(IMAGES) + b"\0" * 9)
    for place, mask in flips:
        content[place] ^= mask
    content = bytes(content[:cut])
    folder = tmp_path_factory.mktemp("idx")
    try:
        got = read(
            folder, gzip.compress(content) if zipped else content, (3 if known else None, 28, 28)
        )
    except DataError as error:
        message = str(error)
    else:
        assert (cut, got.shape) == (len(idx_bytes(IMAGES)), IMAGES.shape)
        expected = np.frombuffer(content[16:], np.uint8).reshape(got.shape)
        np.testing.assert_array_equal(got, expected)
        return
    assert message.startswith(str(folder / "file"))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_idx_file_are_refused(tmp_path_factory, content: bytes) -> None:
    with pytest.raises(DataError):
        read(tmp_path_factory.mktemp("idx"), content)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_memory_is_taken_as_the_values_come(tmp_path_factory, count: int, zipped: bool) -> None:
    """Whatever number of images is announced."""
    content = bytes([0, 0, 8, 3]) + struct.pack(">III", count, 28, 28) + b"\1" * 99
    folder = tmp_path_factory.mktemp("idx")
    tracemalloc.start()
    try:
        if count > 0:
            with pytest.raises(DataError, match="announces"):
                read(folder, gzip.compress(content) if zipped else content, (None, 28, 28))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * 2**24
