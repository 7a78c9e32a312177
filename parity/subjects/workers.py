"""A backend in several processes of this machine, which train together and answer as one."""

import atexit
import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import numpy as np

from parity.contract.backend import Losses, Session, Workload
from parity.contract.data.datasets import Dataset
from parity.contract.processes import Processes
from parity.contract.recipe import Recipe
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.run.history import Evaluation, History
from parity.contract.run.observers import Observer
from parity.contract.state import State
from parity.subjects import spawned
from parity.subjects.serving import WorkersError, serve

PLANTED: list[tuple[str, Any]] = []
"""Mistakes that are planted at present, by backend: the processes have them too."""

_open: dict[tuple[str, int, str], "Workers"] = {}


def workers(package: str, count: int) -> "Workers":
    """Return the processes of a backend's package, started at the first call."""
    key = package, count, repr(PLANTED)
    for other in [other for other, group in _open.items() if other != key and not group.opened]:
        _open.pop(other).close()  # so that no two groups compete for the cores
    if key not in _open:
        _open[key] = Workers(package, count)
    return _open[key]


@atexit.register
def close_workers() -> None:
    """End all processes that `workers` has started."""
    while _open:
        _open.popitem()[1].close()


def threads_of(count: int) -> int:
    """Return how many threads each of so many processes has, of those that this one may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (int(given) if given.isdecimal() else cores or 1) // count)


class Workers:
    """Processes that have joined; each request goes to all of them."""

    def __init__(self, package: str, count: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            where = f"127.0.0.1:{server.getsockname()[1]}"
        self._package, self._pipes, self._processes = package, [], []
        self.opened = 0
        """Sessions and workloads that are open."""
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        threads = threads_of(count)
        for index in range(count):
            own = Processes(coordinator=where, processes=count, process_id=index)
            output = Path(self._folder.name, str(index))
            process, pipe = spawned.start(serve, output, package, own, threads, PLANTED)
            self._pipes.append(pipe)
            self._processes.append(process)
        self._answers()

    def call(self, method: str, *args: object) -> Any:
        """Return what process 0 answers; raise WorkersError where another answers otherwise."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send((method, args))
        return self._answers()

    def _answers(self) -> Any:
        answers: dict[int, tuple[str, Any, str]] = {}
        try:
            while len(answers) < len(self._pipes):
                waiting = {p: i for i, p in enumerate(self._pipes) if i not in answers}
                for pipe in cast(list[Connection], wait(list(waiting))):
                    answers[waiting[pipe]] = answer = pipe.recv()
                    if answer[0] == "error":  # the others may wait for it in a sum
                        self.close()
                        raise answer[1]
        except (EOFError, OSError):
            last = [spawned.last_line(path) for path in Path(self._folder.name).glob("*")]
            self.close()
            why = next((f": {line}" for line in last if line), "")
            raise WorkersError(f"a process of {self._package} has ended{why}") from None
        for index, (_, _, digest) in answers.items():
            if digest != answers[0][2]:
                self.close()
                raise WorkersError(f"process {index} has other numbers than process 0")
        return answers[0][1]

    def close(self) -> None:
        """End the processes."""
        for key in [key for key, value in _open.items() if value is self]:
            del _open[key]
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            spawned.stop(process, pipe)
        self._folder.cleanup()

    @contextlib.contextmanager
    def session(self, recipe: Recipe, state: State) -> Iterator[Session]:
        """Open a training at `state`, in all processes."""
        with self._opened("session", recipe, state) as number:
            yield _RemoteSession(self, number)

    @contextlib.contextmanager
    def workload(self, recipe: Recipe, state: State, dataset: Dataset) -> Iterator[Workload]:
        """Open trainings to be timed, in all processes."""
        with self._opened("workload", recipe, state, dataset) as number:
            yield _RemoteWorkload(self, number)

    @contextlib.contextmanager
    def _opened(self, kind: str, *about: object) -> Iterator[int]:
        number = self.call("open", kind, *about)
        self.opened += 1
        try:
            yield number
        finally:
            self.opened -= 1
            if self in _open.values():
                self.call("shut", number)

    def fit(
        self,
        recipe: Recipe,
        *,
        dataset: Dataset | None = None,
        start: Checkpoint | None = None,
        observer: Observer,
    ) -> History:
        """Train in all processes, which keep a run's folder; the observer sees the pauses after."""
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            history, pauses = self.call("fit", recipe, dataset, start, observer.every, place)
            writers = sorted(path.name for path in place.iterdir())
        if writers != ["0"]:
            raise WorkersError(f"processes {', '.join(writers) or 'none'} write a run's folder")
        for progress, state in pauses:
            observer.paused(progress, state)
        return history

    def evaluate(self, recipe: Recipe, **options: Any) -> Evaluation:
        """Evaluate in all processes."""
        return self.call("run", "evaluate", recipe, options)

    def predict(self, recipe: Recipe, **options: Any) -> np.ndarray:
        """Predict in all processes."""
        return self.call("run", "predict", recipe, options)


class _Remote:
    def __init__(self, workers: Workers, number: int) -> None:
        self._workers, self._number = workers, number

    def _call(self, method: str, *args: object) -> Any:
        return self._workers.call("on", self._number, method, args)


class _RemoteSession(_Remote, Session):
    def steps(self, images: np.ndarray, labels: np.ndarray, order: np.ndarray) -> Losses:
        return self._call("steps", images, labels, order)

    def export(self) -> State:
        return self._call("export")

    def load(self, state: State) -> None:
        self._call("load", state)


class _RemoteWorkload(_Remote, Workload):
    def forward(self, repeats: int) -> None:
        self._call("forward", repeats)

    def steps(self, repeats: int) -> Losses:
        return self._call("steps", repeats)

    def epoch(self) -> float:
        return self._call("epoch")

    def product(self, size: int, repeats: int) -> None:
        self._call("product", size, repeats)

    def programs(self) -> int:
        return self._call("programs")

    def device_memory(self) -> int | None:
        return self._call("device_memory")
