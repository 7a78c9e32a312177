"""Precision is set inside `computing`, nothing of it is left after, and it can be read."""

import contextlib
import dataclasses
import json
import warnings
from types import SimpleNamespace
from typing import Any

import jax
import pytest
import torch

import jaxcnn
import jaxcnn.device
import torchcnn
import torchcnn.device
import torchcnn.optim
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


def test_compiling_does_not_say_that_tf32_is_left_off() -> None:
    with torchcnn.computing(torchcnn.resolve(Recipe(device="cpu", mode="jit"))):
        warnings.warn("TensorFloat32 tensor cores for float32 are not enabled", stacklevel=1)


def test_on_cuda_adam_is_not_the_one_whose_second_moment_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.optim, "Adam", lambda params, **options: options)
    chosen = {}
    for device in ("cpu", "cuda"):
        parameter: Any = SimpleNamespace(device=SimpleNamespace(type=device))
        options: Any = torchcnn.optim.adam([parameter], lr=1e-3)
        chosen[device] = options["fused"], options["foreach"]
    assert chosen == {"cpu": (True, False), "cuda": (False, True)}


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
    def no_devices(backend: str | None) -> None:
        raise AssertionError

    monkeypatch.setattr(jax, "local_devices", no_devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(DeviceError, match="JAX_PLATFORMS=cuda"):
        jaxcnn.resolve(Recipe())


def test_the_environment_has_versions_device_and_flags_as_json(backend: Backend) -> None:
    facts = backend.environment(Recipe(device="cpu"))
    package = {"torchcnn": torch, "jaxcnn": jax}[backend.__name__]
    # its wheel for CUDA is 2.11.0 to pip, and 2.11.0+cu130 to itself
    assert package.__version__.startswith(str(facts[package.__name__]))
    assert facts["device"] == "cpu"
    assert facts["float32 matmul precision"] == "highest"
    assert json.loads(json.dumps(facts)) == facts


def test_pytorchs_environment_has_the_flags_of_a_step() -> None:
    facts = torchcnn.environment(Recipe(device="cpu"))
    assert not torch_flags()[2]
    assert {
        "threads within an operation": torch.get_num_threads(),
        "TF32 in matrix products": False,
        "TF32 in cuDNN": False,
        "cuDNN deterministic": True,
        "cuDNN benchmark": False,
    }.items() <= facts.items()


def test_jaxs_environment_has_the_flags_of_a_step() -> None:
    assert jaxcnn.environment(Recipe(device="cpu", dtype="float32"))["64-bit types"] is False
    assert jaxcnn.environment(Recipe(device="cpu", dtype="float64"))["64-bit types"] is True


def test_a_flag_that_is_on_during_a_step_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torchcnn.device, "computing", lambda recipe: contextlib.nullcontext())
    assert torchcnn.environment(Recipe(device="cpu"))["TF32 in cuDNN"] is True
    monkeypatch.setattr(jaxcnn.device, "computing", lambda recipe: jax.enable_x64(True))
    assert jaxcnn.environment(Recipe(device="cpu"))["64-bit types"] is True


def test_the_compiler_of_jit_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "sh -c")
    assert str(torchcnn.environment(Recipe(device="cpu"))["C++ compiler"]).endswith("/sh")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert torchcnn.environment(Recipe(device="cpu"))["C++ compiler"] == "none"


def test_there_is_no_environment_of_a_device_that_is_not_there(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device cuda"):
        backend.environment(Recipe(device="cuda"))
