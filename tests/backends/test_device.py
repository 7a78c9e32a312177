"""Precision is set inside `computing`, and nothing of it is left after."""

import dataclasses

import jax
import pytest
import torch

import jaxcnn
import torchcnn
from parity.contract.backend import Backend
from parity.contract.errors import DeviceError
from parity.contract.recipe import DType, Recipe


def torch_flags() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return (
        torch.get_float32_matmul_precision(),
        cudnn.allow_tf32,
        cudnn.deterministic,
        cudnn.benchmark,
    )


def jax_flags() -> tuple[object, ...]:
    values = jax.config.values
    return values["jax_default_matmul_precision"], values["jax_enable_x64"]


def test_pytorch_computes_without_tf32_and_deterministically() -> None:
    before = torch_flags()
    with torchcnn.computing(torchcnn.resolve(Recipe(device="cpu"))):
        assert torch_flags() == ("highest", False, True, False)
    assert torch_flags() == before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_jax_computes_at_the_highest_precision(dtype: DType) -> None:
    before = jax_flags()
    with jaxcnn.computing(jaxcnn.resolve(Recipe(dtype=dtype, device="cpu"))):
        assert jax_flags() == ("highest", dtype == "float64")
    assert jax_flags() == before


def test_auto_is_resolved_to_what_is_usual(backend: Backend) -> None:
    recipe = backend.resolve(Recipe())
    assert recipe.mode == {"torchcnn": "eager", "jaxcnn": "jit"}[backend.__name__]
    assert recipe.device != "auto"
    explicit = dataclasses.replace(recipe, mode="eager")
    assert backend.resolve(explicit) == explicit


def test_jit_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(DeviceError, match="no-such-compiler not found"):
        torchcnn.resolve(Recipe(mode="jit", device="cpu"))


def test_platforms_that_jax_cannot_have_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_devices(platform: str | None) -> None:
        raise AssertionError

    monkeypatch.setattr(jax, "devices", no_devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(DeviceError, match="JAX_PLATFORMS=cuda"):
        jaxcnn.resolve(Recipe())
