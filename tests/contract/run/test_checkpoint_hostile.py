"""Damaged and hostile checkpoint files are refused by one short line that names the file."""

import copy
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.contract.run.checkpoint import LARGEST, read_checkpoint, write_checkpoint
from tests.checkpoints import checkpoint, compact, pack, random_state, refused, unpack


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "checkpoint.safetensors"
    write_checkpoint(path, checkpoint())
    return path


@pytest.fixture(scope="module")
def good(file: Path) -> bytes:
    return file.read_bytes()


def header_end(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def refuse(path: Path, content: bytes, reason: str = ".") -> None:
    path.write_bytes(content)
    with refused(reason) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not a checkpoint of this network: ")
    assert message.isprintable()
    assert len(message) < len(str(path)) + 400


def bent(content: bytes, places: Iterable[int]) -> Iterable[bytes]:
    """Yield the content with one bit of each of these bytes flipped."""
    stream = np.random.RandomState(0)
    for place in places:
        mask = 1 << stream.randint(8)
        yield content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]


def test_a_file_is_refused_if_a_bit_of_it_is_changed(good: bytes, tmp_path: Path) -> None:
    """One bit of every byte of the header, white space included, and of some of the tensors."""
    body = np.random.RandomState(1).randint(header_end(good), len(good), 300)
    for content in bent(good, [*range(header_end(good)), *body.tolist()]):
        refuse(tmp_path / "file", content)


def test_a_file_is_refused_wherever_it_is_cut(good: bytes, tmp_path: Path) -> None:
    body = np.random.RandomState(0).randint(header_end(good), len(good), 300)
    for length in [*range(0, header_end(good) + 1, 3), *body.tolist(), len(good) - 1]:
        refuse(tmp_path / "file", good[:length])


@pytest.mark.parametrize("where", ["before", "between", "after"])
def test_bytes_too_many_are_refused(where: str, good: bytes, tmp_path: Path) -> None:
    place = {"before": 0, "between": header_end(good), "after": len(good)}[where]
    refuse(tmp_path / "file", good[:place] + b"\0" * 8 + good[place:])


CONV, BIAS = "params.conv1.weight", "params.conv1.bias"


def entry(name: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header[name].update(changes)


def said(text: str) -> Callable[[dict[str, Any]], None]:
    return lambda header: header["__metadata__"].update(checkpoint=text)


HEADERS = {
    "same place": lambda h: h[BIAS].update(data_offsets=h["adam.v.conv1.bias"]["data_offsets"]),
    "inside out": lambda h: h[CONV]["data_offsets"].reverse(),
    "beyond the end": entry(CONV, data_offsets=[10**6, 10**6 + 576]),
    "half precision": entry(CONV, dtype="F16"),
    "integers": entry(CONV, dtype="I32"),
    "transposed": entry("params.fc1.weight", shape=[2704, 10]),
    "flattened": entry(CONV, shape=[144]),
    "huge shape": entry(CONV, shape=[2**62, 2**62, 3, 3]),
    "missing tensor": lambda h: h.pop(BIAS),
    "extra tensor": lambda h: h.update(m={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
    "many extra tensors": lambda h: h.update({f"{n}" * 99: 0 for n in range(999)}),
    "renamed tensor": lambda h: h.update({"conv1.bias": h.pop(BIAS)}),
    "no step": lambda h: h.update({"steps": h.pop("step")}),
    "a tensor's name in colour": lambda h: h.update({"\x1b[31m": h.pop(BIAS)}),
    "unknown key": entry(CONV, stride=[1]),
    "no metadata": lambda h: h.pop("__metadata__"),
    "other metadata": lambda h: h["__metadata__"].update(more="x"),
    "metadata of numbers": lambda h: h["__metadata__"].update(checkpoint=1),
    "nothing said": said(""),
    "a list said": said("[]"),
    "NaN said": said('{"schema":1,"sha256":"","loss_sum":NaN}'),
    "a name twice": said('{"schema":1,"schema":1}'),
    "depths said": said('{"a":' * 9999 + "1" + "}" * 9999),
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_a_header_that_lies_is_refused(
    change: Callable[[dict[str, Any]], object], good: bytes, tmp_path: Path
) -> None:
    header, data = unpack(good)
    changed = copy.deepcopy(header)
    change(changed)
    refuse(tmp_path / "file", pack(compact(changed), data))


def test_the_packer_packs_what_is_read(good: bytes, tmp_path: Path) -> None:
    header, data = unpack(good)
    padding = " " * (good.index(data) - 8 - len(compact(header).encode()))
    assert pack(compact(header) + padding, data) == good
    refuse(tmp_path / "file", pack(compact(header) + padding + " " * 8, data), "as they were")


def test_a_name_twice_in_the_text_is_refused(good: bytes, tmp_path: Path) -> None:
    """JSON takes the last of two values; of the file, nothing else is changed."""
    header, data = unpack(good)
    text = header["__metadata__"]["checkpoint"]
    header["__metadata__"]["checkpoint"] = text.replace('"batch":8', '"batch":9,"batch":8')
    refuse(tmp_path / "file", pack(compact(header), data), "not as they were written")


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


CONTENTS = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "zeros": b"\0" * 100_000,
    "text": b"not a checkpoint at all\n" * 9999,
    "a pickle": pickle.dumps(Exploit()),
    "a zip archive": b"PK\x03\x04" + b"\0" * 99_999,
    "negative length": b"\xff" * 8 + b"{}",
    "2 GB announced": struct.pack("<Q", 2 * 10**9) + b"{}" * 999,
    "no JSON": pack(b"\xff\xfe", b""),
    "null": pack("null", b""),
    "a list": pack("[]", b""),
    "a byte order mark": pack("\ufeff{}", b""),
    "depths": pack("[" * 10**5 + "]" * 10**5, b""),
    "depths of tables": pack('{"a":' * 10**5 + "1" + "}" * 10**5, b""),
    "a number of 5000 digits": pack('{"a":{"dtype":"F32","shape":[' + "9" * 5000 + "]}}", b""),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_another_kind_of_file_is_refused_and_nothing_run(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refuse(tmp_path / "file", content)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_value_that_is_not_finite_is_refused_whatever_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = random_state(0)
    with monkeypatch.context() as patch:
        patch.setattr("parity.contract.run.checkpoint._require_state", lambda *_: None)
        state.adam_v["fc1.weight"][3, 4] = np.nan
        write_checkpoint(tmp_path / "file", checkpoint(state=state))
    with refused(r"adam\.v\.fc1\.weight has values that are not finite"):
        read_checkpoint(tmp_path / "file")


def test_a_file_of_gigabytes_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(struct.pack("<Q", 2 * 10**9))
    os.truncate(path, 2 * 10**9)
    tracemalloc.start()
    try:
        with refused(f"{path} .* more than {LARGEST} bytes"):
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
        path.unlink()


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with refused(f"{tmp_path}/pipe .*: it is not a file"):
        read_checkpoint(tmp_path / "pipe")
