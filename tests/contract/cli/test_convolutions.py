"""A GPU's convolutions are sums, unless the user has said something about them."""

import importlib.util
import os

import pytest

from parity.contract.cli.convolutions import XLA_FLAGS, plain_convolutions

OURS = {"TORCH_CUDNN_V8_API_DISABLED": "1", "XLA_FLAGS": " ".join(XLA_FLAGS)}


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:  # so that it is removed again
        monkeypatch.setenv(name, "")
        del os.environ[name]


@pytest.fixture
def _jax_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "jax_cuda13_plugin")


@pytest.mark.usefixtures("_jax_for_cuda")
def test_both_frameworks_are_kept_from_transforms() -> None:
    plain_convolutions()
    assert OURS.items() <= os.environ.items()


@pytest.mark.usefixtures("_jax_for_cuda")
def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_CUDNN_V8_API_DISABLED", "0")
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=4 --xla_dump_to=x")
    plain_convolutions()
    assert os.environ["TORCH_CUDNN_V8_API_DISABLED"] == "0"
    assert os.environ["XLA_FLAGS"].split() == [
        "--xla_gpu_autotune_level=4", "--xla_dump_to=x", "--xla_gpu_deterministic_ops=true"
    ]  # fmt: skip


def test_without_jax_for_cuda_its_flags_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    plain_convolutions()
    assert "XLA_FLAGS" not in os.environ
