"""Call a function in a process of its own, with libraries, threads and caches of its own."""

import multiprocessing
import os
import sys
import tempfile
import threading
import types
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from parity.contract.cli.threads import bind_threads

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC", "PJRT_NPROC")
"""Environment variables that say how many threads a library makes."""

_SPAWN = multiprocessing.get_context("spawn")


class ProcessLostError(Exception):
    """A process has ended without an answer; the message says how."""


def call(function: Callable[..., Any], *arguments: object, threads: int, bind: bool = False) -> Any:
    """Return what a module's function returns in a new process, which ends with it.

    The process finds the caches of compiled code empty, prints nothing, and has as many cores as
    `threads`; with `bind`, OpenMP's stay on theirs, as in the command `torchcnn`. ProcessLostError:
    the function raised an exception, or the process was killed.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        output = Path(folder, "output")
        output.touch()
        pipe, end = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(end, output, threads, bind))
        # A spawned process would import the program that runs, and might run it again.
        program = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            process.start()
        finally:
            sys.modules["__main__"] = program
            end.close()
        try:
            pipe.send((function, arguments))
            return pipe.recv()
        except (EOFError, OSError):
            process.join()
            status = process.exitcode or 0
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            last = output.read_text(errors="replace").strip().rpartition("\n")[2].strip()
            raise ProcessLostError(f"its process {how}" + (last and f": {last}")) from None
        finally:
            process.kill()
            process.join()
            pipe.close()


def _serve(pipe: Connection, output: Path, threads: int, bind: bool) -> None:
    """Answer a call; no library has been imported before its environment is set."""
    with output.open("w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if bind:
        bind_threads()
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(output.with_name("inductor"))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    function, arguments = pipe.recv()
    pipe.send(function(*arguments))


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
