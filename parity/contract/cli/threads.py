"""How the OpenMP threads of a command behave beside a busy neighbour."""

import os
import sys

BINDING = {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}
"""Environment variables that keep each OpenMP thread on a core of its own."""


def bind_threads() -> None:
    """Keep OpenMP's threads on cores of their own; to be called before PyTorch is imported.

    PyTorch's threads meet thousands of times a second. Where another process is busy, the kernel
    moves them about, and each waits for one that is not running: on two cores an epoch then takes
    2 to 5 times its quiet time, with bound threads 2.1 times. Nothing is done where the environment
    sets OpenMP, and for several processes, which would all be bound to the same cores.
    """
    # these two are scikit-learn's, set as it is imported, and say nothing about threads
    names = os.environ.keys() - {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"}
    several = "WORLD_SIZE" in names or any(a.startswith("--coordinator") for a in sys.argv)
    chosen = several or any(n.startswith(("OMP_", "GOMP_", "KMP_")) for n in names)
    if sys.platform == "linux" and not chosen:
        os.environ.update(BINDING)
