"""Call a function in a process of its own, with libraries, threads and caches of its own."""

import os
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from parity.contract.cli.threads import bind_threads
from parity.subjects import spawned


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
        process, pipe = spawned.start(_serve, output, threads, bind)
        try:
            pipe.send((function, arguments))
            return pipe.recv()
        except (EOFError, OSError):
            process.join()
            status = process.exitcode or 0
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            last = spawned.last_line(output)
            raise ProcessLostError(f"its process {how}" + (last and f": {last}")) from None
        finally:
            spawned.stop(process, pipe)


def _serve(pipe: Connection, output: Path, threads: int, bind: bool) -> None:
    """Answer a call; no library has been imported before its environment is set."""
    spawned.begin(output)
    if bind:
        bind_threads()
    spawned.set_threads(threads)
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(output.with_name("inductor"))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    function, arguments = pipe.recv()
    pipe.send(function(*arguments))
