"""Damaged and hostile checkpoint files are refused by name, before anything is allocated for them.

`python -O` runs these tests too: see the last one.
"""

import copy
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.contract.files.tensors import LARGEST_HEADER, parse_json
from parity.contract.run.checkpoint import read_checkpoint, write_checkpoint
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


def refuse(folder: Path, content: bytes, reason: str = ".") -> str:
    path = folder / "hostile.safetensors"
    path.write_bytes(content)
    with refused(reason) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    if not message.startswith(f"{path} ") or "\n" in message or len(message) > len(str(path)) + 400:
        pytest.fail(f"not one short line that names the file: {message}")
    return message


def test_a_file_cut_anywhere_in_its_header_is_refused(file: Path, good: bytes) -> None:
    lengths = range(header_end(good) + 1)
    assert len(lengths) > 1000
    cut(file, good, lengths)


def test_a_file_cut_at_1000_places_of_its_body_is_refused(file: Path, good: bytes) -> None:
    places = np.random.RandomState(0).randint(header_end(good), len(good), 1000)
    cut(file, good, [*sorted(places.tolist()), len(good) - 1])


def cut(file: Path, good: bytes, lengths: Any) -> None:
    with file.open("r+b") as handle:
        for length in reversed(lengths):
            handle.truncate(length)
            with refused(str(file)):
                read_checkpoint(file)
    file.write_bytes(good)
    read_checkpoint(file)


def flip(file: Path, good: bytes, place: int, mask: int) -> None:
    """Refuse the file with some bits of one byte flipped, and mend it again."""
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.pwrite(descriptor, bytes([good[place] ^ mask]), place)
        with refused(str(file)):
            read_checkpoint(file)
    finally:
        os.pwrite(descriptor, good[place : place + 1], place)
        os.close(descriptor)


def test_every_bit_of_the_header_matters(file: Path, good: bytes) -> None:
    for place in range(header_end(good)):
        for bit in range(8):
            flip(file, good, place, 1 << bit)
    read_checkpoint(file)


def test_white_space_and_case_of_the_header_matter(tmp_path: Path) -> None:
    """JSON does not mind a tab in the place of a space, nor an upper-case exponent."""
    file = tmp_path / "file"
    for name in ("a", "ab"):  # one of them needs padding
        write_checkpoint(file, checkpoint(backend=name))
        good = file.read_bytes()
        end = header_end(good)
        if good[end - 1] == ord(" "):
            break
    flip(file, good, end - 1, ord(" ") ^ ord("\t"))
    flip(file, good, good.index(b"1e-08") + 1, ord("e") ^ ord("E"))


def test_bits_of_the_tensors_matter(file: Path, good: bytes) -> None:
    stream = np.random.RandomState(0)
    for place in stream.randint(header_end(good), len(good), 500):
        flip(file, good, int(place), 1 << stream.randint(8))
    read_checkpoint(file)


CONV, BIAS = "params.conv1.weight", "params.conv1.bias"


def entry(name: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header[name].update(changes)


def swap(a: str, b: str) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header[a], header[b] = header[b], header[a]

    return change


HEADERS = {
    "same place": (
        lambda h: h[BIAS].update(data_offsets=h["adam.v.conv1.bias"]["data_offsets"]),
        "overlap, or gaps",
    ),
    "inside out": (lambda h: h[CONV]["data_offsets"].reverse(), "overlap, or gaps"),
    "beyond the end": (entry(CONV, data_offsets=[10**6, 10**6 + 576]), "overlap, or gaps"),
    "before the start": (entry(CONV, data_offsets=[-576, 0]), "overlap, or gaps"),
    "one place": (entry(CONV, data_offsets=[0]), "overlap, or gaps"),
    "three places": (entry(CONV, data_offsets=[0, 8, 16]), "overlap, or gaps"),
    "no places": (entry(CONV, data_offsets=[]), "overlap, or gaps"),
    "a place of text": (entry(CONV, data_offsets="0-576"), "overlap, or gaps"),
    "a place of false": (
        lambda h: h["step"].update(data_offsets=[False, 8]), "overlap, or gaps|damaged"
    ),
    "places of others": (swap("params.fc1.weight", "params.fc1.bias"), "expected {'dtype'"),
    "half precision": (entry(CONV, dtype="F16"), "'F16'.*expected {'dtype': 'F32'"),
    "integers": (entry(CONV, dtype="I32"), "'I32'.*expected {'dtype': 'F32'"),
    "double precision": (entry(CONV, dtype="F64"), "'F64'.*expected {'dtype': 'F32'"),
    "no such type": (entry(CONV, dtype=["F32"]), "expected {'dtype': 'F32'"),
    "transposed": (entry("params.fc1.weight", shape=[2704, 10]), r"\[2704, 10\].*\[10, 2704\]"),
    "flattened": (entry(CONV, shape=[144]), r"\[144\].*\[16, 1, 3, 3\]"),
    "negative shape": (entry(CONV, shape=[-16, -1, 3, 3]), "expected"),
    "huge shape": (entry(CONV, shape=[2**62, 2**62, 3, 3]), "expected"),
    "shape of text": (entry(CONV, shape="16"), "expected"),
    "missing tensor": (lambda h: h.pop(BIAS), r"missing \['params\.conv1\.bias'\]"),
    "extra tensor": (
        lambda h: h.update(more={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
        r"unknown \['more'\]",
    ),
    "many extra tensors": (lambda h: h.update({f"{n}" * 99: 0 for n in range(999)}), "unknown"),
    "renamed tensor": (
        lambda h: h.update({"conv1.bias": h.pop(BIAS)}), r"unknown \['conv1\.bias'\]"
    ),
    "a tensor's name in colour": (lambda h: h.update({"\x1b[31m": 0}), r"\['\\x1b\[31m'\]"),
    "unknown key": (entry(CONV, stride=[1]), "type, shape and place of params.conv1.weight"),
    "missing key": (lambda h: h[CONV].pop("dtype"), "type, shape and place"),
    "a list for a tensor": (lambda h: h.update({CONV: ["F32", [], []]}), "type, shape and place"),
    "no metadata": (lambda h: h.pop("__metadata__"), "it has metadata"),
    "other metadata": (lambda h: h["__metadata__"].update(more="x"), "it has metadata"),
    "metadata of numbers": (lambda h: h["__metadata__"].update(checkpoint=1), "not texts"),
    "metadata a list": (lambda h: h.update(__metadata__=[]), "not texts"),
    "no digest": (
        lambda h: h["__metadata__"].update(checkpoint='{"schema":1}'), "checkpoint must have"
    ),
    "text without a table": (lambda h: h["__metadata__"].update(checkpoint="[1]"), "schema is"),
    "text that is no JSON": (lambda h: h["__metadata__"].update(checkpoint="{"), "no proper JSON"),
    "a number without end": (
        lambda h: h["__metadata__"].update(checkpoint='{"lr":1e999}'), "1e999 is not a number"
    ),
    "a number that is none": (
        lambda h: h["__metadata__"].update(checkpoint='{"lr":NaN}'), "NaN is not a number"
    ),
    "a name twice in the text": (
        lambda h: h["__metadata__"].update(checkpoint='{"lr":1,"lr":1}'), "a name comes twice"
    ),
    "depths in the text": (
        lambda h: h["__metadata__"].update(checkpoint='{"a":' * 9999 + "1" + "}" * 9999), "JSON"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), HEADERS.values(), ids=HEADERS)
def test_a_header_that_lies_is_refused(
    change: Callable[[dict[str, Any]], object], reason: str, good: bytes, tmp_path: Path
) -> None:
    header, data = unpack(good)
    changed = copy.deepcopy(header)
    change(changed)
    refuse(tmp_path, pack(compact(changed), data), reason)


def text_with(old: str, new: str) -> Callable[[str], bytes]:
    return lambda text: text.replace(old, new, 1).encode()


SPELLINGS = {
    "a tensor twice": lambda text: (text[:-1] + f',"{BIAS}":' + "{}}").encode(),
    "metadata twice": text_with('{"__metadata__"', '{"__metadata__":{},"__metadata__"'),
    "a key twice": text_with('"dtype":"I64"', '"dtype":"I64","dtype":"I64"'),
    "an escape twice": text_with('"dtype":"I64"', '"dtype":"I64","\\u0064type":"I64"'),
    "spaces between": text_with(":", ": "),
    "a space before": lambda text: f" {text}".encode(),
    "eight spaces after": lambda text: f"{text}        ".encode(),
    "a line after": lambda text: f"{text}\n".encode(),
    "a second value": lambda text: f"{text}{{}}".encode(),
    "a zero after": lambda text: f"{text}\0".encode(),
    "a byte order mark": lambda text: f"\ufeff{text}".encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "no UTF-8": lambda text: text.encode().replace(b"params", b"\xff\xfe\xc0\xafms", 1),
    "half a character": text_with('"step"', '"step\\ud800"'),
    "nothing": lambda text: b"",
    "null": lambda text: b"null",
    "a list": lambda text: b"[]",
    "depths": lambda text: b"[" * 10**5 + b"]" * 10**5,
    "depths of tables": lambda text: b'{"a":' * 10**5 + b"1" + b"}" * 10**5,
    "depths that JSON can read": lambda text: b'{"a":' * 900 + b"1" + b"}" * 900,
    "a number of 5000 digits": text_with('"shape":[]', f'"shape":[{"9" * 5000}]'),
    "an infinite number": text_with('"shape":[]', '"shape":[1e999]'),
}


@pytest.mark.parametrize("respell", SPELLINGS.values(), ids=SPELLINGS)
def test_a_header_that_no_writer_writes_is_refused(
    respell: Callable[[str], bytes], good: bytes, tmp_path: Path
) -> None:
    header, data = unpack(good)
    refuse(tmp_path, pack(respell(compact(header)), data))


def test_the_packer_packs_what_is_read(good: bytes, tmp_path: Path) -> None:
    header, data = unpack(good)
    path = tmp_path / "file"
    path.write_bytes(pack(compact(header) + " " * 7, data))
    read_checkpoint(path)


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
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_another_kind_of_file_is_refused_and_nothing_run(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refuse(tmp_path, content)
    if (tmp_path / "executed").exists():
        pytest.fail("it was run")


@pytest.mark.parametrize("where", ["before", "between", "after"])
def test_bytes_too_many_are_refused(where: str, good: bytes, tmp_path: Path) -> None:
    place = {"before": 0, "between": header_end(good), "after": len(good)}[where]
    refuse(tmp_path, good[:place] + b"\0" * 8 + good[place:])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused_whatever_the_digest(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = random_state(0)
    with monkeypatch.context() as patch:
        patch.setattr("parity.contract.run.checkpoint._check_state", lambda *_: None)
        state.adam_v["fc1.weight"][3, 4] = value
        write_checkpoint(tmp_path / "file", checkpoint(state=state))
    with refused(r"adam_v\.fc1\.weight has values that are not finite"):
        read_checkpoint(tmp_path / "file")


@pytest.mark.parametrize("length", [2 * 10**9, LARGEST_HEADER + 1, 2**63, 2**64 - 1])
def test_a_header_of_gigabytes_costs_nothing(length: int, tmp_path: Path) -> None:
    """Even where the file is that long."""
    path = tmp_path / "file"
    path.write_bytes(struct.pack("<Q", length))
    os.truncate(path, min(length, 2 * 10**9) + 8 + 326_528)
    tracemalloc.start()
    try:
        with refused("is not a safetensors file"):
            read_checkpoint(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        path.unlink()
    if peak > 10**6:
        pytest.fail(f"{peak} bytes were allocated")


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with refused("pipe is not a file"):
        read_checkpoint(tmp_path / "pipe")


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', "[NaN]", "[1e999]", "{", "[-Infinity]"])
def test_json_that_is_not_unmistakable_is_refused(text: str) -> None:
    with pytest.raises(Exception, match="no proper JSON"):
        parse_json(text)


def test_the_same_is_refused_under_python_o() -> None:
    """Nothing that guards input is an assert, and nothing that these tests check with is one."""
    tests = ["tests/contract/data/test_idx.py", "tests/contract/data/test_images.py", __file__]
    command = [sys.executable, "-O", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    options = ["-W", "ignore::pytest.PytestConfigWarning", "-k", "not python_o and not every_bit"]
    run = subprocess.run(
        [*command, *options, *tests], capture_output=True, text=True, check=False, timeout=300
    )
    if run.returncode != 0:
        pytest.fail(run.stdout + run.stderr)
