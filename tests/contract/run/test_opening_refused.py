"""What is no checkpoint of this network is refused with a line that says what it is."""

import importlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from parity.contract.cli.programs import main
from parity.contract.errors import CheckpointError
from tests.contract.run.test_opening import model, opened, trained, weights


def jit(path: Path) -> None:
    torch.jit.save(torch.jit.trace(model(), torch.zeros(1, 1, 28, 28)), path)


def saved(content: Callable[[], Any], **options: Any) -> Callable[[Path], object]:
    return lambda path: torch.save(content(), path, **options)


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def renamed() -> dict[str, torch.Tensor]:
    return dict(zip(["0.weight", "0.bias", "4.weight", "4.bias"], weights().values(), strict=True))


def archive(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr(name, b"x")
    return buffer.getvalue()


def pickled(opcodes: bytes) -> bytes:
    """Return an archive as of torch.save around opcodes of a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr("a/data.pkl", b"\x80\x02" + opcodes + b".")
    return buffer.getvalue()


TWICE = b"q\x00h\x00\x86"
"""(x, x) of what is on the stack: forty times, a key whose hash takes for ever."""
MANY_AXES = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x00tQK\x00("
    + b"K\x01" * 9 + b"t(" + b"K\x01" * 9 + b"t\x89NtR"
)  # fmt: skip


def of_fewer() -> dict[str, torch.Tensor]:
    return {name: x for name, x in weights().items() if name != "fc1.bias"}


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a key of keys": (
        written(pickled(b"}K\x01" + 40 * TWICE + b"K\x00s")), "neither a name nor a number",
    ),
    "more steps than any model": (written(pickled(b"N" * (2**22 + 2))), "more than 4194304"),
    "containers without end": (
        written(pickled(b"](" + b"]" * 20_000 + b"e")), "more than 10000 dictionaries and lists",
    ),
    "a whole model": (
        saved(model), r"names tests\.backends\.test_checkpoints\.SimpleCNN.*model\.state_dict\(\)"
    ),
    "a whole optimiser": (
        saved(lambda: {"model": weights(), "optimizer": trained()[1]}),
        r"names torch\.optim\.adam\.Adam.*no objects but what state_dict\(\) returns",
    ),
    "of layers of other names": (
        saved(renamed),
        r"found 0\.weight, 0\.bias, 4\.weight, 4\.bias; missing conv1\.weight, .*"
        r"rename 0\.weight to conv1\.weight, 0\.bias to conv1\.bias",
    ),
    "of a layer less": (saved(of_fewer), r"missing fc1\.bias"),
    "of a layer more": (
        saved(lambda: {"state_dict": {**weights(), "fc2.bias": torch.zeros(3)}}),
        r"under state_dict: .*unexpected fc2\.bias",
    ),
    "of another shape": (
        saved(lambda: {**weights(), "fc1.bias": torch.zeros(7)}), r"params\.fc1\.bias: expect"
    ),
    "of integers": (
        saved(lambda: weights(dtype=torch.int8)), "dtype must be float32 or float64, got int8"
    ),
    "two networks": (
        saved(lambda: {"a": weights(), "b": weights()}), "2 times, under a, b; save one of them"
    ),
    "an optimiser alone": (
        saved(lambda: trained()[1].state_dict()), "no weights by name but state, param_groups"
    ),
    "epochs alone": (
        saved(lambda: {"epoch": 3, "loss": 0.4}), "no weights by name but epoch, loss; expected"
    ),
    "parameters without names": (saved(lambda: [*model().parameters()]), "by name but a list"),
    "of PyTorch before 1.6": (
        saved(weights, _use_new_zipfile_serialization=False), "PyTorch before 1.6"
    ),
    "TorchScript": (jit, "a program of TorchScript"),
    "HDF5": (written(b"\x89HDF\r\n\x1a\n"), "an HDF5 file, as Keras writes them"),
    "Keras": (written(archive("model.weights.h5")), r"a zip archive of model\.weights\.h5"),
    "npz": (written(archive("conv1.npy")), r"a zip archive of conv1\.npy"),
    "another archive": (written(archive("letter.txt")), r"of letter\.txt, not one of torch"),
    "Git LFS": (written(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "a page": (written(b"<!DOCTYPE html>"), "a page of HTML"),
    "JSON": (written(b'{"conv1.weight": 1}'), "it is JSON"),
    "gzip": (written(b"\x1f\x8b\x08"), "unpack it first"),
    "nothing": (written(b""), "an empty file"),
    "text": (written(b"dear checkpoint,\n"), "something else"),
    "a folder of others": (
        lambda path: [path.mkdir(), (path / "a.txt").touch()], r"holds a\.txt; name one of them"
    ),
    "safetensors of others": (
        lambda path: safetensors.numpy.save_file({"kernel": np.zeros(3)}, path),
        r"found kernel; missing conv1\.weight",
    ),
    "safetensors, cut": (
        lambda path: path.write_bytes(safetensors.torch.save(weights())[:-9]), "incomplete metadata"
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit
@pytest.mark.parametrize(("write", "mend"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("program", ["torchcnn", "jaxcnn"])
def test_what_is_refused_is_one_line_that_says_what_it_is_and_what_helps(
    write: Callable[[Path], object],
    mend: str,
    program: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "cnn.pt"
    write(path)
    before = path.read_bytes() if path.is_file() else None
    backend = importlib.import_module(program)
    assert main(backend, "", ["evaluate", "--checkpoint", str(path)]) == 2  # pyright: ignore[reportArgumentType]
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert captured.err.startswith(f"{program}: error: {path}")
    with pytest.raises(CheckpointError, match=mend):
        opened(path)
    assert before == (path.read_bytes() if path.is_file() else None)
