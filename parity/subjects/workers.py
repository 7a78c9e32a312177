"""A backend in several processes of this machine, which train together and answer as one."""

import atexit
import contextlib
import hashlib
import importlib
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import numpy as np

from parity.contract.backend import Losses, Session, Workload
from parity.contract.data.datasets import Dataset
from parity.contract.group import Group
from parity.contract.processes import Processes
from parity.contract.recipe import Recipe
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.run.history import Evaluation, History
from parity.contract.run.observers import Observer, Observers, RunFolder
from parity.contract.run.progress import Progress
from parity.contract.state import State

PLANTED: list[tuple[str, Any]] = []
"""Mistakes that are planted at present, by backend: the processes have them too."""

_SPAWN = multiprocessing.get_context("spawn")

_open: dict[tuple[str, int, str], "Workers"] = {}


class WorkersError(Exception):
    """Processes that train together are not one: one has ended, or has other numbers."""


def workers(package: str, count: int) -> "Workers":
    """Return the processes of a backend's package, started at the first call."""
    key = package, count, repr(PLANTED)
    for other in [other for other in _open if other != key]:
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
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        threads = threads_of(count)
        program = sys.modules["__main__"]  # a spawned process would import, and maybe run, it
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            for index in range(count):
                pipe, end = _SPAWN.Pipe()
                own = Processes(coordinator=where, processes=count, process_id=index)
                output = Path(self._folder.name, str(index))
                about = (end, output, package, own, threads, PLANTED)
                process = _SPAWN.Process(target=_serve, args=about)
                process.start()
                end.close()
                self._pipes.append(pipe)
                self._processes.append(process)
        finally:
            sys.modules["__main__"] = program
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
            said = [path.read_text(errors="replace") for path in Path(self._folder.name).iterdir()]
            self.close()
            last = [text.strip().rpartition("\n")[2] for text in said if text.strip()]
            why = f": {last[0]}" if last else ""
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
            process.kill()
            process.join()
            pipe.close()
        self._folder.cleanup()

    @contextlib.contextmanager
    def session(self, recipe: Recipe, state: State) -> Iterator[Session]:
        """Open a training at `state`, in all processes."""
        number = self.call("open", "session", recipe, state)
        try:
            yield _RemoteSession(self, number)
        finally:
            if self in _open.values():
                self.call("shut", number)

    @contextlib.contextmanager
    def workload(self, recipe: Recipe, state: State, dataset: Dataset) -> Iterator[Workload]:
        """Open trainings to be timed, in all processes."""
        number = self.call("open", "workload", recipe, state, dataset)
        try:
            yield _RemoteWorkload(self, number)
        finally:
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


class _Pauses(Observer):
    def __init__(self, every: int | None) -> None:
        self.every = every
        self.seen: list[tuple[Any, State]] = []

    def paused(self, progress: Progress, state: State) -> None:
        place = {name: getattr(progress, name) for name in ("epoch", "batch", "step", "steps")}
        self.seen.append((types.SimpleNamespace(**place), state))


class _Served:
    """What a process answers."""

    def __init__(self, package: str, group: Group) -> None:
        self._module, self._group = importlib.import_module(package), group
        self._stacks: list[contextlib.ExitStack] = []
        self._opened: list[Any] = []

    def open(self, kind: str, *args: object) -> int:
        stack = contextlib.ExitStack()
        self._opened.append(stack.enter_context(getattr(self._module, kind)(*args)))
        self._stacks.append(stack)
        return len(self._opened) - 1

    def shut(self, number: int) -> None:
        self._stacks[number].close()
        self._opened[number] = None

    def on(self, number: int, method: str, args: tuple[object, ...]) -> Any:
        return getattr(self._opened[number], method)(*args)

    def run(self, method: str, recipe: Recipe, options: dict[str, Any]) -> Any:
        return getattr(self._module, method)(recipe, **options)

    def fit(
        self,
        recipe: Recipe,
        dataset: Dataset,
        start: Checkpoint | None,
        every: int | None,
        place: Path,
    ) -> tuple[History, list[tuple[Any, State]]]:
        pauses = _Pauses(every)
        folder = RunFolder(
            place / str(self._group.index), versions={}, every=every, group=self._group
        )
        observer = Observers(pauses, folder)
        history = self._module.fit(recipe, dataset=dataset, start=start, observer=observer)
        return history, pauses.seen


def _serve(
    pipe: Connection,
    output: Path,
    package: str,
    processes: Processes,
    threads: int,
    planted: list[Any],
) -> None:
    """Answer requests until the pipe is closed; no library is imported before the environment."""
    with output.open("w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"):
        os.environ[name] = str(threads)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "4"
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from parity.subjects.faults import planted as planting

    with contextlib.ExitStack() as stack:
        for backend, edits in planted:
            stack.enter_context(planting(backend, edits))
        module = importlib.import_module(package)
        group = stack.enter_context(module.joined(processes))
        served = _Served(package, group)
        pipe.send(("value", None, ""))
        while True:
            try:
                method, args = pipe.recv()
            except EOFError:
                os._exit(0)
            try:
                value = getattr(served, method)(*args)
                own = value if group.reports else None
                pipe.send(("value", own, _digest(value)))
            except Exception as error:  # noqa: BLE001 - the parent says what it means
                pipe.send(("error", WorkersError(f"{type(error).__name__}: {error}"), ""))


def _digest(value: Any) -> str:
    """Return a digest of numbers that must be the same in all processes; `` of others."""
    match value:
        case tuple((History() as history, _)):
            return _digest(history.state) + str([record.loss for record in history.epochs])
        case State():
            return hashlib.sha256(b"".join(a.tobytes() for a in value.named().values())).hexdigest()
        case Evaluation():
            return f"{value.loss} {value.confusion.tolist()}"
        case np.ndarray():
            return hashlib.sha256(value.tobytes()).hexdigest()
    return ""


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
