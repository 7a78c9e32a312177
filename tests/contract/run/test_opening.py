"""The checkpoints that people have are read whatever they are called, or refused with a help."""

import importlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import nn

from parity.contract.cli.programs import main
from parity.contract.errors import CheckpointError
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.run.opening import open_checkpoint
from parity.contract.run.pickled import read_torch
from parity.contract.state import PARAMETERS
from tests.backends.test_checkpoints import SimpleCNN

NAMES = [*PARAMETERS]


def no_folder(path: Path) -> Checkpoint:
    pytest.fail(f"{path} is no folder of Orbax")


def opened(path: Path, *, weights: bool = False) -> Checkpoint:
    return open_checkpoint(path, read_folder=no_folder, weights=weights)


def model() -> SimpleCNN:
    torch.manual_seed(5)
    return SimpleCNN()


def weights(front: str = "", dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {front + name: x.to(dtype) for name, x in model().state_dict().items()}


def trained(kind: Any = torch.optim.Adam, **options: Any) -> tuple[SimpleCNN, Any]:
    network = model()
    optimizer = kind(network.parameters(), **{"lr": 0.002, **options})
    stream = torch.Generator().manual_seed(1)
    for _ in range(2):
        images = torch.rand(4, 1, 28, 28, generator=stream)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), torch.arange(4)).backward()
        optimizer.step()
    return network, optimizer


def compiled() -> dict[str, Any]:
    network: Any = torch.compile(model())
    return OrderedDict(network.state_dict())


def tutorial(**more: Any) -> dict[str, Any]:
    network, optimizer = trained()
    return {
        "epoch": 4, "model_state_dict": network.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(), "loss": 0.4, **more,
    }  # fmt: skip


def lightning() -> dict[str, Any]:
    network, optimizer = trained()
    return {
        "epoch": 4, "global_step": 2, "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{n}": x for n, x in network.state_dict().items()},
        "optimizer_states": [optimizer.state_dict()], "lr_schedulers": [], "callbacks": {},
    }  # fmt: skip


def parameters() -> dict[str, Any]:
    return dict(model().named_parameters())


def averaged() -> dict[str, Any]:
    return torch.optim.swa_utils.AveragedModel(model()).state_dict()


def namespace() -> Any:
    return importlib.import_module("argparse").Namespace(lr=0.1, out=Path("runs"))


READ: dict[str, tuple[Callable[[], Any], str]] = {
    "a state_dict": (weights, ""),
    "of torch.compile": (compiled, "_orig_mod.conv1.weight is read as conv1.weight"),
    "of DataParallel": (lambda: weights("module."), "module.conv1.weight is read as"),
    "of both": (lambda: weights("module._orig_mod."), "module._orig_mod.conv1.weight is read"),
    "of both the other way": (lambda: weights("_orig_mod.module."), "_orig_mod.module.conv1"),
    "of a model around it": (lambda: weights("backbone.net."), "backbone.net.conv1.weight is"),
    "one layer compiled": (
        lambda: {n.replace("fc1.", "fc1._orig_mod."): x for n, x in weights().items()}, ""
    ),
    "averaged": (averaged, "module.conv1.weight is read as"),
    "parameters": (parameters, ""),
    "in another order": (lambda: dict(reversed(weights().items())), ""),
    "half": (lambda: weights(dtype=torch.float16), "float16 widened to float32"),
    "bfloat16": (lambda: weights(dtype=torch.bfloat16), "bfloat16 widened to float32"),
    "float8": (lambda: weights(dtype=torch.float8_e5m2), "float8_e5m2 widened to float32"),
    "some half": (
        lambda: {n: x.half() if "conv" in n else x for n, x in weights().items()},
        "float16 widened to float32",
    ),
    "one view": (
        lambda: {**weights(), "conv1.bias": torch.arange(64.0)[16:48:2]}, ""
    ),
    "transposed": (
        lambda: {**weights(), "fc1.weight": weights()["fc1.weight"].T.contiguous().T}, ""
    ),
    "the tutorial's dictionary": (tutorial, "not used: epoch, loss"),
    "with NumPy's loss": (lambda: tutorial(loss=np.float64(0.4)), "not used: epoch, loss"),
    "with options": (lambda: tutorial(args=namespace()), "not used: epoch, loss, args"),
    "state_dict": (lambda: {"state_dict": weights(), "arch": "cnn"}, "not used: arch"),
    "model": (lambda: {"model": weights(), "acc": torch.tensor(0.9)}, "not used: acc"),
    "net": (lambda: {"net": weights("module."), "acc": 97.1, "epoch": 3}, "not used: acc, epoch"),
    "any name": (lambda: {"best": {"weights": weights()}}, ""),
    "a pair": (lambda: tuple(x.state_dict() for x in trained()), ""),
    "Lightning": (lightning, "model.conv1.weight is read as"),
    "an average beside": (
        lambda: {"model": weights(), "model_ema": averaged()}, "those under model are taken"
    ),
    "a scheduler beside": (
        lambda: tutorial(scheduler={"last_epoch": 3, "_last_lr": [0.1]}), "not used: epoch, loss"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "note"), READ.values(), ids=READ)
def test_what_torch_save_wrote_is_read_as_pytorch_reads_it(
    content: Callable[[], Any], note: str, tmp_path: Path
) -> None:
    """The oracle is torch.load: the same values, found by shape, bit for bit after widening."""
    path = tmp_path / "cnn.pth"
    torch.save(content(), path)
    read = opened(path)
    assert note in " | ".join(read.notes)
    by_shape: dict[Any, torch.Tensor] = {}

    def walk(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            by_shape.setdefault(tuple(value.shape), value)
        elif isinstance(value, dict | list | tuple) and not (
            isinstance(value, dict) and "param_groups" in value
        ):
            for item in value.values() if isinstance(value, dict) else value:
                walk(item)

    walk(torch.load(path, weights_only=False))
    for name, (shape, _) in PARAMETERS.items():
        expected = by_shape[shape].detach().to(torch.float32).numpy()
        np.testing.assert_array_equal(read.state.params[name], expected, strict=True)


@pytest.mark.parametrize("content", [tutorial, lightning], ids=["tutorial", "Lightning"])
def test_adams_moments_come_along(content: Callable[[], Any], tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "cnn.pt")
    network, optimizer = trained()
    read = opened(tmp_path / "cnn.pt")
    assert (read.state.step, read.recipe.lr) == (2, 0.002)
    for name, value in network.named_parameters():
        moment = optimizer.state[value]["exp_avg"].numpy()
        np.testing.assert_array_equal(read.state.adam_m[name], moment, strict=True)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW], ids=["SGD", "AdamW"])
def test_another_optimiser_is_refused_to_a_training_and_ignored_by_an_evaluation(
    kind: Any, tmp_path: Path
) -> None:
    network, optimizer = trained(kind)
    content = {"model_state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "cnn.pt")
    with pytest.raises(
        CheckpointError, match=r"as the recipe's Adam; .* save model.state_dict\(\)"
    ):
        opened(tmp_path / "cnn.pt")
    read = opened(tmp_path / "cnn.pt", weights=True)
    np.testing.assert_array_equal(read.state.params["fc1.bias"], network.fc1.bias.detach().numpy())
    assert read.state.step == 0
    assert "its optimizer is not used: its optimizer has" in read.notes[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_plain_safetensors_file_is_read(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"  # whatever it is called
    safetensors.torch.save_file(weights("_orig_mod.", dtype), path)
    read = opened(path)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for name, value in weights(dtype=dtype).items():
        expected = value.to(wide).numpy()
        np.testing.assert_array_equal(read.state.params[name], expected, strict=True)
    assert ("widened" in " ".join(read.notes)) == (dtype in (torch.float16, torch.bfloat16))


def test_the_folder_of_transformers_stands_for_its_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    safetensors.torch.save_file(weights(), tmp_path / "model.safetensors")
    assert opened(tmp_path).state.step == 0


@pytest.mark.parametrize("program", ["torchcnn", "jaxcnn"])
def test_both_programs_evaluate_and_go_on_from_what_the_tutorial_saved(
    program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend: Any = importlib.import_module(program)
    path = tmp_path / "cnn.pth"
    torch.save(tutorial(), path)
    evaluate = ["evaluate", "--checkpoint", str(path), "--dataset", "digits", "--device", "cpu"]
    assert main(backend, "", evaluate) == 0
    captured = capsys.readouterr()
    assert "after 2 steps: loss" in captured.out
    assert captured.err == f"note: {path}: not used: epoch, loss\n"
    out = tmp_path / "run"
    train = ["train", "--resume", str(path), "--out", str(out), "--dataset", "digits", "--override"]
    assert main(backend, "", [*train, "--limit", "64", "--epochs", "1", "--quiet"]) == 0
    assert opened(out).state.step == 3


def test_torchcnn_says_who_reads_a_folder_of_orbax(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torchcnn, jaxcnn = (importlib.import_module(name) for name in ("torchcnn", "jaxcnn"))
    torch.save(weights(), tmp_path / "cnn.pt")
    jaxcnn.write_native(tmp_path / "cnn", opened(tmp_path / "cnn.pt"))
    evaluate = ["evaluate", "--checkpoint", str(tmp_path / "cnn"), "--dataset", "digits"]
    assert main(jaxcnn, "", evaluate) == 0  # pyright: ignore[reportArgumentType]
    assert main(torchcnn, "", evaluate) == 2  # pyright: ignore[reportArgumentType]
    assert "read by jaxcnn, and made a file by parity convert cnn" in capsys.readouterr().err


def test_a_storage_that_many_tensors_share_is_read_once(tmp_path: Path) -> None:
    whole = torch.arange(1000.0)
    torch.save([whole[i:] for i in range(100)], tmp_path / "views.pt")
    arrays = read_torch((tmp_path / "views.pt").read_bytes())
    assert {SimpleNamespace(a=a).a.base is not None for a in arrays} == {True}
    np.testing.assert_array_equal(arrays[7], whole[7:].numpy())
    assert np.shares_memory(arrays[0], arrays[99])
