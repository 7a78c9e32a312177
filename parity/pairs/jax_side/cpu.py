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
    What a pair itself puts on a device stays there. DeviceError: the environment leaves the CPU
    out, or asks for what is not there.
    """
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except (RuntimeError, AssertionError) as error:  # an empty one, of cuda without a GPU
        reason = str(error).partition("\n")[0] or "it finds no device"
        raise DeviceError(
            f"a proof computes on the CPU, which JAX does not have here ({reason};"
            f" JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}); unset JAX_PLATFORMS"
        ) from None
    with jax.default_device(cpu):
        yield
