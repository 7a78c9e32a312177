"""PyTorch's .pt files: what is no checkpoint, or hostile, is refused by name, and not run."""

import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torchcnn
from parity.contract.errors import CheckpointError
from tests.backends.test_checkpoints import SimpleCNN
from tests.checkpoints import checkpoint, refused, signed


class Exploit:
    """What a hostile pickle runs, here with a trace to see."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def whole(**changes: Any) -> dict[str, Any]:
    """The content of a good file, with other values."""
    buffer = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchcnn.checkpoints.write_whole", lambda _, content: buffer.write(content))
        torchcnn.write_native(Path("unused"), checkpoint())
    return {**torch.load(io.BytesIO(buffer.getvalue()), weights_only=True), **changes}


def weights(**changes: Any) -> dict[str, Any]:
    return {**SimpleCNN().state_dict(), **{k.replace("_", "."): v for k, v in changes.items()}}


def adam(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content = whole()
    change(content["optimizer"])
    return content


def said(**changes: Any) -> dict[str, Any]:
    return whole(checkpoint=signed(lambda values: values.update(changes)))


def saying(**changes: Any) -> dict[str, Any]:
    return {**checkpoint().to_json(), **changes}


def group(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda optimizer: optimizer["param_groups"][0].update(changes)


def of_first(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda optimizer: optimizer["state"][0].update(changes)


OTHERS = {
    "another network": (
        lambda: nn.Linear(3, 2).state_dict(),
        "found weight, bias; missing conv1.weight, .* unexpected weight, bias",
    ),
    "the module itself": (SimpleCNN, "names "),
    "a list": (lambda: [1, 2], "it holds no weights by name but a list"),
    "a tensor": (lambda: torch.zeros(3), "no weights by name but one tensor; expected"),
    "a layer less": (lambda: {"fc1.bias": torch.zeros(10)}, "missing conv1.weight, conv1"),
    "a key more": (lambda: weights(fc2_bias=torch.zeros(10)), "fc2.bias"),
    "a text for a weight": (lambda: weights(fc1_bias="0"), r"fc1\.bias is str, expected a tensor"),
    "another shape": (lambda: weights(fc1_bias=torch.zeros(11)), r"fc1\.bias: .* \(11,\)"),
    "a huge view": (
        lambda: weights(fc1_bias=torch.zeros(1).expand(10**12)), r"fc1\.bias: .* got float32 \(10"
    ),
    "integers": (lambda: weights(fc1_bias=torch.zeros(10).long()), "got int64"),
    "two precisions": (lambda: weights(fc1_bias=torch.zeros(10).double()), "expected float32"),
    "sparse": (lambda: weights(fc1_bias=torch.zeros(10).to_sparse()), "names "),
    "negated": (
        lambda: weights(fc1_bias=torch.zeros(10, dtype=torch.cfloat).conj().imag), "negative bit"
    ),
    "on no device": (lambda: weights(fc1_bias=torch.zeros(10, device="meta")), "meta"),
    "NaN": (lambda: weights(fc1_bias=torch.full((10,), torch.nan)), "not finite"),
    "no moments": (lambda: whole(optimizer={}), "optimizer must have state"),
    "an optimiser of text": (lambda: whole(optimizer="adam"), "optimizer must have state"),
    "a moment less": (lambda: adam(lambda o: o["state"].pop(3)), r"parameters \[0, 1, 2\]"),
    "moments of another": (lambda: adam(of_first(max_exp_avg_sq=1)), "must have .* conv1.weight"),
    "different steps": (lambda: adam(of_first(step=torch.tensor(9.0))), "different numbers"),
    "half a step": (
        lambda: adam(lambda o: [m.update(step=torch.tensor(0.5)) for m in o["state"].values()]),
        r"different numbers of steps: \[0\.5\]",
    ),
    "steps of text": (lambda: adam(of_first(step="31")), r"conv1\.weight is str"),
    "a step a parameter": (
        lambda: adam(of_first(step=torch.zeros(3))), r"step of conv1\.weight is shape \(3,\)"
    ),
    "a moment's shape": (lambda: adam(of_first(exp_avg=torch.zeros(16))), r"adam_m\.conv1\.weight"),
    "a moment of infinity": (
        lambda: adam(of_first(exp_avg=torch.full((16, 1, 3, 3), torch.inf))), "SHA-256 differs"
    ),
    "no groups": (lambda: adam(lambda o: o.update(param_groups=[])), "with one group"),
    "two groups": (lambda: adam(lambda o: o["param_groups"].append({})), "one group"),
    "another order": (lambda: adam(group(params=[1, 0, 2, 3])), r"params \[1, 0, 2, 3\]"),
    "another rate": (lambda: adam(group(lr=0.5)), r"lr 0\.5, expected 0\.001"),
    "a rate in a tensor": (lambda: adam(group(lr=torch.tensor(1e-3))), "lr 0.00100000004"),
    "weight decay": (lambda: adam(group(weight_decay=0.1)), r"weight_decay 0\.1"),
    "AMSGrad": (lambda: adam(group(amsgrad=True)), "amsgrad True"),
    "said nothing": (lambda: whole(checkpoint=None), "schema is None"),
    "said another schema": (lambda: said(schema=2), "schema is 2"),
    "said NaN": (lambda: whole(checkpoint=saying(loss_sum=float("nan"))), "not JSON"),
    "said a tensor": (lambda: whole(checkpoint=saying(loss_sum=torch.zeros(3))), "not JSON"),
    "said something else": (lambda: whole(checkpoint=saying(batch=9)), "SHA-256 differs"),
    "said another recipe": (lambda: said(recipe={}), "recipe: missing"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), OTHERS.values(), ids=OTHERS)
def test_a_pt_of_something_else_is_refused_by_name(
    content: Callable[[], Any], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "cnn.pt"
    path.write_bytes(saved(content()))
    with refused(reason) as caught:
        torchcnn.read_native(path)
    assert str(caught.value).startswith(f"{path} is not a checkpoint of this network: ")
    assert "\n" not in str(caught.value)


def rezip(content: bytes, change: Callable[[str, bytes], bytes], **options: Any) -> bytes:
    """Return an archive with some entries changed and the right checksums."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(buffer, "w", **options) as out,
    ):
        for entry in source.infolist():
            out.writestr(entry.filename, change(entry.filename, source.read(entry)))
    return buffer.getvalue()


def with_pickle(new: bytes) -> bytes:
    return rezip(saved(weights()), lambda name, old: new if name.endswith("data.pkl") else old)


def twice(content: bytes) -> bytes:
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"")
    return buffer.getvalue()


def flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


RUN = Exploit(os.system, "touch executed")


def nested(depth: int = 20_000) -> bytes:
    """A good file, but for lists in lists as what it says: deeper than Python could write."""
    lists = b"]" * depth + b"a" * (depth - 1)

    def change(_: str, old: bytes) -> bytes:
        return old.replace(b"X\x04\x00\x00\x00MARK", lists)

    return rezip(saved(whole(checkpoint="MARK")), change)


def laughs(depth: int = 60) -> list[Any]:
    """Sixty lists that would be 2**60 if each were written where it is held."""
    lists: list[Any] = ["ha", "ha"]
    for _ in range(depth):
        lists = [lists, lists]
    return lists


HOSTILE = {
    "os.system": (lambda: saved({"conv1.bias": RUN}), "names .*system"),
    "os.system, plainly": (lambda: pickle.dumps(RUN), "not a zip archive"),
    "os.system, before zip": (
        lambda: saved({"a": RUN}, _use_new_zipfile_serialization=False), "not a zip archive"
    ),
    "os.system, protocol 4": (lambda: with_pickle(pickle.dumps(RUN, 4)), "names .*system"),
    "os.system, protocol 0": (lambda: with_pickle(pickle.dumps(RUN, 0)), "names .*system"),
    "eval": (lambda: saved({"a": Exploit(eval, "open('executed', 'w')")}), "names .*eval"),
    "a gigabyte of nothing": (lambda: saved({"a": Exploit(bytearray, 10**9)}), "names .*bytearray"),
    "a set of endless values": (
        lambda: saved({"a": Exploit(set, torch.zeros(1).expand(2**40))}), "names .*set"
    ),
    "a view made dense": (
        lambda: saved({
            "a": Exploit(
                torch._utils._rebuild_device_tensor_from_cpu_tensor,  # pyright: ignore[reportAttributeAccessIssue]
                torch.zeros(1).expand(2**40), torch.float64, "cpu", False,
            )
        }),
        "names .*_rebuild_device_tensor",
    ),
    "the registry": (lambda: with_pickle(b"\x80\x02\x82\x01."), "its pickle has EXT1"),
    "a broken pickle": (lambda: with_pickle(b"\x80\x02}q"), "."),
    "an empty pickle": (lambda: with_pickle(b""), "."),
    "a pickle without end": (lambda: with_pickle(b"\x80\x02}"), "."),
    "a storage that is not there": (
        lambda: with_pickle(re.sub(b"FloatStorage", b"DoubleStorage", _pickle())),
        "72 values of DoubleStorage, not 144",
    ),
    "compressed": (
        lambda: rezip(saved(weights()), lambda _, old: old, compression=zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "a pickle before the archive": (
        lambda: pickle.dumps(bytearray(1000), 2) + saved(weights()), "not a zip archive"
    ),
    "lists in lists": (nested, "recursion|schema is"),
    "a view beyond memory": (
        lambda: saved(weights(fc1_bias=torch.zeros(1).expand(10**12))), "expected"
    ),
    "a zip bomb": (lambda: rezip(saved({"a": torch.zeros(10**7)}), lambda _, old: old,
                                 compression=zipfile.ZIP_DEFLATED), "compressed"),
    "laughs": (lambda: saved(whole(checkpoint=saying(versions={"a": laughs()}))), "too many"),
    "laughs alone": (lambda: saved(whole(checkpoint=laughs())), "too many"),
    "a schema of laughs": (lambda: saved(whole(checkpoint={"schema": laughs()})), "too many"),
    "a rate of laughs": (lambda: saved(adam(group(lr=laughs()))), "lr"),
    "betas of laughs": (lambda: saved(adam(group(betas=laughs()))), "betas"),
    "an entry twice": (lambda: twice(saved(weights())), "two entries of one name"),
    "a flipped bit": (lambda: flipped(saved(weights())), "checksum"),
    "cut": (lambda: saved(weights())[:-100], "not a zip file"),
    "empty": (lambda: b"", "not a zip archive"),
    "an empty archive": (lambda: b"PK\x05\x06" + b"\0" * 18, "not a zip archive"),
}  # fmt: skip


def test_every_byte_of_a_pts_directory_is_refused_or_makes_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "cnn.pt"
    torchcnn.write_native(path, checkpoint())
    content = path.read_bytes()
    expected = torchcnn.read_native(path).state.params["conv1.weight"]
    end = content.rindex(b"PK\x05\x06")
    start = int.from_bytes(content[end + 16 : end + 20], "little")
    refusals = 0
    for place in range(start, len(content)):
        bent = bytearray(content)
        bent[place] ^= 1 << place % 8
        path.write_bytes(bent)
        try:
            got = torchcnn.read_native(path).state.params["conv1.weight"]
        except CheckpointError:
            refusals += 1
        else:
            np.testing.assert_array_equal(got, expected)
    assert refusals


def _pickle() -> bytes:
    with zipfile.ZipFile(io.BytesIO(saved(weights()))) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))


@pytest.mark.parametrize(("content", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_pt_is_refused_and_nothing_of_it_run(
    content: Callable[[], bytes], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "cnn.pt"
    path.write_bytes(content())
    with refused(f"^{path} is not a checkpoint.*({reason})"):
        torchcnn.read_native(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_or_a_huge_pt_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with refused(f"{tmp_path}/pipe.pt .*: it is not a file"):
        torchcnn.read_native(tmp_path / "pipe.pt")
    (tmp_path / "cnn.pt").touch()
    os.truncate(tmp_path / "cnn.pt", 2 * 10**9)
    with refused(f"{tmp_path}/cnn.pt .* it has more than"):
        torchcnn.read_native(tmp_path / "cnn.pt")
