"""Where JAX's side computes."""

import contextlib
import os
from collections.abc import Iterator

import jax

from parity.contract.errors import DeviceError


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Let JAX compute on the CPU, as PyTorch's side does, also where it has a GPU or a TPU.

    Their float32 products are of TF32 or bfloat16 by default, and of another sum from run to run.
    DeviceError: the environment leaves the CPU out.
    """
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except (RuntimeError, AssertionError):
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise DeviceError(
            f"a proof computes on the CPU, which JAX_PLATFORMS={platforms} leaves out; set"
            f" JAX_PLATFORMS={platforms},cpu"
        ) from None
    with jax.default_device(cpu):
        yield
