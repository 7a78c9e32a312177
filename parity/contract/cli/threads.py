"""How the OpenMP threads of a command behave beside a busy neighbour."""

import os
import sys

BINDING = {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}
"""Environment variables that keep each OpenMP thread on a core of its own."""

_BY_SKLEARN = {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"}
"""Set by scikit-learn as it is imported; they say nothing about threads."""


def bind_threads() -> None:
    """Keep OpenMP's threads on cores of their own; to be called before PyTorch is imported.

    PyTorch's threads meet at thousands of small parallel regions a second. Where another process
    is busy, the kernel moves them about, and each waits for one that is not running. On two cores
    with one busy neighbour an epoch takes 2.1 times its quiet time with bound threads (op by op;
    compiled 1.9 times), and 2 to 5 times with others; quiet, both take the same.

    Nothing is done where the environment says something about OpenMP, where `torchrun` has started
    several processes, which would all be bound to the same cores, and on other systems than Linux.
    """
    names = os.environ.keys() - _BY_SKLEARN
    chosen = "WORLD_SIZE" in names or any(n.startswith(("OMP_", "GOMP_", "KMP_")) for n in names)
    if sys.platform == "linux" and not chosen:
        os.environ.update(BINDING)
