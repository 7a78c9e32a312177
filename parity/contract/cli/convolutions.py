"""What cuDNN makes of a convolution on a GPU."""

import importlib.util
import os

XLA_FLAGS = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0")
"""The second keeps XLA from choosing by time, and so from Winograd's transforms."""


def plain_convolutions() -> None:
    """Have sums of products, the same ones in each run; to be called before a framework computes.

    Left alone, PyTorch and JAX both let cuDNN transform the weight's gradient (Winograd): a sum
    whose products are all zero is then not zero, and none is as near as its own products' rounding
    allows. What the environment sets stays.
    """
    os.environ.setdefault("TORCH_CUDNN_V8_API_DISABLED", "1")
    if importlib.util.find_spec("jax_cuda13_plugin"):  # nothing else might know these flags
        flags = os.environ.get("XLA_FLAGS", "")
        ours = (flag for flag in XLA_FLAGS if flag.partition("=")[0] not in flags)
        os.environ["XLA_FLAGS"] = " ".join([flags, *ours]).strip()
