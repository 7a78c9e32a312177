"""An arm's turn in a benchmark, as a process: `worker` at the other end of a pipe."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from typing import IO, Any, cast

Answer = dict[str, Any]


class ArmLostError(Exception):
    """An arm's process has ended; the message says how."""


class Arm:
    """A process that runs one arm.

    Args:
        name: a subject, or `seed`.
        recipe: the recipe as JSON.
        threads: cores that the process may use, and threads that its libraries make.
        slowdown: what it idles on purpose after computing, as a fraction of the time for that.

    Raises:
        ArmLostError: the process has ended.
    """

    def __init__(
        self, name: str, recipe: dict[str, Any], *, threads: int, slowdown: float = 0.0
    ) -> None:
        self._caches = tempfile.TemporaryDirectory()
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - `close` closes it
        self._process = subprocess.Popen(
            [sys.executable, "-m", "parity.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={
                **os.environ,
                **dict.fromkeys(_THREADS, str(threads)),
                "JAX_ENABLE_COMPILATION_CACHE": "0",
                "TORCHINDUCTOR_CACHE_DIR": self._caches.name,
            },
        )
        self._to, self._from = (
            cast(IO[str], pipe) for pipe in (self._process.stdin, self._process.stdout)
        )
        try:
            self.hello = self.ask(arm=name, recipe=recipe, threads=threads, slowdown=slowdown)
        except BaseException:
            self.close()
            raise

    def ask(self, /, **request: object) -> Answer:
        """Send a request and wait for the answer; raise ArmLostError."""
        with contextlib.suppress(BrokenPipeError):
            self._to.write(json.dumps(request) + "\n")
            self._to.flush()
        line = self._from.readline()
        if not line:
            raise ArmLostError(self._ending())
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for file in (self._from, self._to, self._said):
            with contextlib.suppress(BrokenPipeError):  # of what was asked and never read
                file.close()
        self._caches.cleanup()

    def _ending(self) -> str:
        """Say how the process has ended, and the last that it said."""
        status = self._process.wait()
        self._said.seek(0)
        lines = [line.strip() for line in self._said if line.strip()]
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"its process {how}" + (f": {lines[-1]}" if lines else "")


_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC", "PJRT_NPROC")
"""Environment variables that tell the libraries how many threads to make."""
