"""Where and how PyTorch computes: device, precision, determinism, waiting for it."""

import contextlib
import dataclasses
import logging
import os
import shlex
import shutil
import warnings
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from parity.contract.errors import DeviceError
from parity.contract.recipe import Recipe


def resolve(recipe: Recipe) -> Recipe:
    """Replace `auto` by CUDA where it is, eager mode, its faster kernel; or raise DeviceError."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    device = default if recipe.device == "auto" else recipe.device
    mode = "eager" if recipe.mode == "auto" else recipe.mode
    faster = "fused" if device == "cpu" else "layers"
    kernel = faster if recipe.kernel == "auto" else recipe.kernel
    torch_device(device)
    if mode == "jit" and device == "cpu" and _compiler() is None:
        raise DeviceError(
            f"mode jit: torch.compile needs a C++ compiler ({', '.join(_compilers())} not found);"
            " install one, or use --mode eager"
        )
    return dataclasses.replace(recipe, device=device, mode=mode, kernel=kernel)


def _compilers() -> list[str]:
    """Return the C++ compilers to look for: the one that $CXX names, else the usual ones."""
    return shlex.split(os.environ.get("CXX", ""))[:1] or ["g++", "clang++", "cl"]


def _compiler() -> str | None:
    """Return the path of the C++ compiler of jit mode; None where there is none."""
    return next(filter(None, map(shutil.which, _compilers())), None)


def torch_device(device: str) -> torch.device:
    """Return PyTorch's device of that name, cpu, cuda or tpu; or raise DeviceError."""
    if device == "cuda" and not torch.cuda.is_available():
        reason = "sees no GPU" if torch.version.cuda else "is a build without CUDA"
        raise DeviceError(f"device cuda: PyTorch {torch.__version__} {reason}; use --device cpu")
    if device == "tpu":
        try:
            import torch_tpu  # noqa: F401 - it registers the device  # pyright: ignore[reportMissingImports] - optional
        except ImportError as error:
            raise DeviceError(
                f"device tpu: PyTorch needs TorchTPU ({error});"
                " install cnn-parity[tpu] on Python 3.12 or later, or use --device cpu"
            ) from None
        if not torch.get_device_module("tpu").is_available():
            raise DeviceError("device tpu: TorchTPU sees no TPU; use --device cpu")
    return torch.device(device)


@contextlib.contextmanager
def computing(recipe: Recipe) -> Iterator[None]:
    """Compute at the precision that the dtype promises, deterministically, inside this block.

    TF32 is off, for matrix products and for cuDNN, and cuDNN neither tunes nor picks algorithms
    whose sums depend on timing; that it sums at all is in the environment, which is read once: the
    commands set it (`plain_convolutions`). In jit mode the compiled code of the block is dropped
    after it, and a step that was recompiled too often is an error: PyTorch would continue in eager
    mode instead.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("highest")
        cudnn = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        stack.enter_context(cudnn)
        if recipe.mode == "jit":
            import torch._dynamo.config as dynamo

            logger = logging.getLogger("torch._dynamo")
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)  # it warns that a profiler's mark is not compiled
            stack.callback(torch.compiler.reset)
            one_graph = dynamo.patch(fail_on_recompile_limit_hit=True, trace_autograd_ops=True)
            stack.enter_context(one_graph)  # of loss and gradients
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")  # are left idle
        yield


def versions() -> dict[str, str]:
    """Return the version of each package that computes or loads data."""
    return {package: version(package) for package in ("torch", "torchvision")}


def environment(recipe: Recipe) -> dict[str, str | int | bool]:
    """Return versions, device, threads, and flags inside `computing`; or raise DeviceError."""
    recipe = resolve(recipe)
    device = {"device": recipe.device}
    if recipe.device == "cuda":
        device = {
            "device": f"cuda: {torch.cuda.get_device_name()}",
            "compute capability": ".".join(map(str, torch.cuda.get_device_capability())),
            "devices": torch.cuda.device_count(),
            "CUDA": torch.version.cuda or "none",
            "cuDNN": torch.backends.cudnn.version() or "none",
        }
    with computing(recipe):
        return {
            **versions(),
            **device,
            "CPU instructions": torch.backends.cpu.get_cpu_capability(),
            "threads within an operation": torch.get_num_threads(),
            "threads between operations": torch.get_num_interop_threads(),
            "threads bound to cores": os.environ.get("OMP_PROC_BIND", "false") != "false",
            "float32 matmul precision": torch.get_float32_matmul_precision(),
            "TF32 in matrix products": torch.backends.cuda.matmul.allow_tf32,
            "TF32 in cuDNN": torch.backends.cudnn.allow_tf32,
            "cuDNN deterministic": torch.backends.cudnn.deterministic,
            "cuDNN benchmark": torch.backends.cudnn.benchmark,
            "oneDNN": torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled),
            "C++ compiler": _compiler() or "none",
        }


def to_device(
    images: Float[np.ndarray, "B 1 28 28"], labels: Int64[np.ndarray, "B"], recipe: Recipe
) -> tuple[Tensor, Tensor]:
    """Return a canonical batch as PyTorch's: images (B, 1, 28, 28), labels int64."""
    return torch.from_numpy(images).to(recipe.device), torch.from_numpy(labels).to(recipe.device)


def to_host(metrics: list[Tensor]) -> Float[np.ndarray, "steps ..."]:
    """Wait for the device and return metrics of one shape, stacked, as float64."""
    return torch.stack(metrics).cpu().numpy().astype(np.float64)
