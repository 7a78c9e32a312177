"""What a process does that is one of several: it joins the others and answers requests."""

import contextlib
import hashlib
import importlib
import os
import types
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from parity.contract.data.datasets import Dataset
from parity.contract.errors import CnnParityError
from parity.contract.group import Group
from parity.contract.processes import Processes
from parity.contract.recipe import Recipe
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.run.history import Evaluation, History
from parity.contract.run.observers import Observer, Observers, RunFolder
from parity.contract.run.progress import Progress
from parity.contract.state import State
from parity.subjects import spawned


class WorkersError(CnnParityError):
    """Processes that train together are not one: one has ended, or has other numbers."""


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


def serve(
    pipe: Connection,
    output: Path,
    package: str,
    processes: Processes,
    threads: int,
    planted: list[Any],
) -> None:
    """Answer requests until the pipe is closed; no library is imported before the environment."""
    spawned.begin(output)
    spawned.set_threads(threads)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "4"
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
