"""Processes of this machine that one starts: they print into files, and end with it."""

import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import cast

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC", "PJRT_NPROC")
"""Environment variables that say how many threads a library makes."""

_SPAWN = multiprocessing.get_context("spawn")


def start(target: Callable[..., None], *arguments: object) -> tuple[SpawnProcess, Connection]:
    """Start a process that calls `target(pipe, *arguments)`; return it, and our end of the pipe."""
    pipe, end = _SPAWN.Pipe()
    process = _SPAWN.Process(target=target, args=(end, *arguments))
    # A spawned process would import the program that runs, and might run it again.
    program = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        process.start()
    finally:
        sys.modules["__main__"] = program
        end.close()
    return process, cast(Connection, pipe)


def begin(output: Path) -> None:
    """Let this process print into a file, and end when the one that started it does."""
    with output.open("w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def set_threads(count: int) -> None:
    """Let the libraries that are imported from here on make so many threads."""
    os.environ.update(dict.fromkeys(_THREADS, str(count)))


def last_line(output: Path) -> str:
    """Return what a process has printed last."""
    return output.read_text(errors="replace").strip().rpartition("\n")[2].strip()


def stop(process: SpawnProcess, pipe: Connection) -> None:
    """End a process, whatever it does."""
    process.kill()
    process.join()
    pipe.close()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
