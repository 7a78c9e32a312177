"""Where and how JAX computes: device, precision, waiting for it."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from importlib.metadata import version

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int64

from jaxcnn.parallel import replicated
from parity.contract.errors import DeviceError
from parity.contract.recipe import Recipe


def resolve(recipe: Recipe) -> Recipe:
    """Replace `auto` by JAX's default device, jit mode, its faster kernel; or raise DeviceError."""
    platform = jax_device(recipe.device).platform
    default = "cuda" if platform == "gpu" else platform
    device = default if recipe.device == "auto" else recipe.device
    mode = "jit" if recipe.mode == "auto" else recipe.mode
    faster = "fused" if device in ("cpu", "cuda") and mode == "jit" else "layers"
    kernel = faster if recipe.kernel == "auto" else recipe.kernel
    return dataclasses.replace(recipe, device=device, mode=mode, kernel=kernel)


def jax_device(device: str) -> jax.Device:  # pyright: ignore[reportInvalidTypeForm] - untyped
    """Return JAX's first cpu, cuda or tpu, its default device for auto; or raise DeviceError."""
    try:
        return jax.local_devices(backend=None if device == "auto" else device)[0]
    except (RuntimeError, AssertionError) as error:
        reason = (str(error) or "it finds no device").splitlines()[0]
        if platforms := os.environ.get("JAX_PLATFORMS"):
            reason += f"; JAX_PLATFORMS={platforms}"
        raise DeviceError(
            f"device {device}: JAX {jax.__version__} does not have it ({reason}); install"
            " cnn-parity[cuda] or cnn-parity[tpu] on a machine that has one, or use --device cpu"
        ) from None


@contextlib.contextmanager
def computing(recipe: Recipe) -> Iterator[None]:
    """Compute at the precision that the dtype promises, on the recipe's device, inside this block.

    Matrix products and convolutions are exact to the dtype: no TF32 on a GPU, no bfloat16 passes on
    a TPU. 64-bit types are on for float64 only: with them, Optax would correct its bias in float64.
    What makes a GPU's convolutions deterministic, and sums, is in $XLA_FLAGS, which is read once:
    the commands set it (`plain_convolutions`).
    """
    with (
        jax.enable_x64(recipe.dtype == "float64"),
        jax.default_matmul_precision("highest"),
        jax.default_device(jax_device(recipe.device)),
    ):
        yield


def versions() -> dict[str, str]:
    """Return the version of each package that computes or loads data."""
    packages = ("jax", "jaxlib", "flax", "optax", "tensorflow-datasets")
    return {package: version(package) for package in packages}


def environment(recipe: Recipe) -> dict[str, str | int | bool]:
    """Return versions, device, and flags inside `computing`; or raise DeviceError."""
    recipe = resolve(recipe)
    device = jax_device(recipe.device)
    facts = {"device": "cpu", "devices": jax.device_count(device.platform)}
    if device.platform != "cpu":
        capability = getattr(device, "compute_capability", None)  # a GPU's only
        facts |= {"compute capability": str(capability)} if capability else {}
        facts["device"] = f"{device.platform}: {device.device_kind}"
        facts["driven by"] = " ".join(device.client.platform_version.split())
    with computing(recipe):
        flags = jax.config.values
        cached = flags["jax_enable_compilation_cache"] and flags["jax_compilation_cache_dir"]
        return {
            **versions(),
            **facts,
            "float32 matmul precision": flags["jax_default_matmul_precision"] or "default",
            "64-bit types": flags["jax_enable_x64"],
            "persistent compilation cache": cached or "none",
        }


def to_device(
    images: Float[np.ndarray, "B 1 28 28"], labels: Int64[np.ndarray, "B"], recipe: Recipe
) -> tuple[Array, Array]:
    """Return a canonical batch as JAX's: images (B, 28, 28, 1), labels int32."""
    native = images.transpose(0, 2, 3, 1), labels.astype(np.int32)
    return replicated(native, recipe)


def to_host(metrics: list[Array]) -> Float[np.ndarray, "steps ..."]:
    """Wait for the device and return metrics of one shape, stacked, as float64."""
    return np.array(jax.device_get(metrics), dtype=np.float64)
