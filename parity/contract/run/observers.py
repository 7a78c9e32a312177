"""Who observes a training, and the folder that keeps its results."""

import dataclasses
import json
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from parity.contract.data.datasets import Dataset, data_directory
from parity.contract.errors import OutputError, StoppedError, os_errors_as
from parity.contract.files import write_whole
from parity.contract.group import ALONE, Group
from parity.contract.interrupts import leave
from parity.contract.recipe import Recipe
from parity.contract.run.checkpoint import CHECKPOINT_FILE, write_checkpoint
from parity.contract.run.history import Epoch
from parity.contract.run.progress import Progress
from parity.contract.state import State

RECIPE_FILE = "recipe.json"
"""Its name in the folder of a run."""

_OTHER_FOLDER = "; give --out another folder"

_HOW = ("device", "mode", "kernel", "dtype")
"""Fields of a recipe that say how a step was computed."""


class Observer:
    """Sees how a training proceeds; each method does nothing unless overridden."""

    every: int | None = None
    """The training also pauses after each multiple of so many steps."""

    def start(self, backend: str, recipe: Recipe, dataset: Dataset) -> None:
        """Data and device are ready; the first step comes next."""

    def paused(self, progress: Progress, state: State) -> None:
        """The training is between two steps: before the first, after some, after an epoch."""

    def epoch(self, record: Epoch) -> None:
        """An epoch has ended."""


SILENT = Observer()
"""Reports nothing."""


class Observers(Observer):
    """Several observers as one; at most one of them has `every`."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        self.every = next((o.every for o in observers if o.every is not None), None)

    def start(self, backend: str, recipe: Recipe, dataset: Dataset) -> None:
        for observer in self._observers:
            observer.start(backend, recipe, dataset)

    def paused(self, progress: Progress, state: State) -> None:
        for observer in self._observers:
            observer.paused(progress, state)

    def epoch(self, record: Epoch) -> None:
        for observer in self._observers:
            observer.epoch(record)


class RunFolder(Observer):
    """Keeps recipe.json, history.jsonl and checkpoint.safetensors of a training in a folder.

    The checkpoint is written before the first step, after each epoch, after each multiple of
    `every` steps, and after a signal that `stop` has handled, which ends in StoppedError. To
    continue a finished training changes nothing. recipe.json also says from which step on which
    backend made them, and how.

    One training at a time: until `release`, or until the process ends, another one is refused with
    an OutputError; so is the folder of an earlier run, unless it is the one that continues.

    Each process of a group has one: a signal to any of them stops all, and one of them writes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        versions: dict[str, str],
        every: int | None = None,
        resuming: bool = False,
        group: Group = ALONE,
    ) -> None:
        self._folder, self._versions, self.every = folder, versions, every
        self._checkpoint, self._history = folder / CHECKPOINT_FILE, folder / "history.jsonl"
        self._recipe_file, self._resuming = folder / RECIPE_FILE, resuming
        self._signal: int | None = None
        self._group = group
        self._saved = self._worth_waiting = False
        self._lock = FileLock(folder / ".lock", timeout=0)
        if not group.reports:
            return
        with os_errors_as(OutputError, f"cannot look into {folder}", _OTHER_FOLDER):
            begun = (folder / ".lock").exists() or (resuming and self._checkpoint.exists())
        if begun:
            self._hold()
        self._require_free()

    def _hold(self) -> None:
        """Keep other trainings out of the folder, which must be there."""
        if self._lock.is_locked:
            return
        with os_errors_as(OutputError, f"cannot lock {self._folder}", _OTHER_FOLDER):
            try:
                self._lock.acquire()
            except Timeout:
                busy = f"another training is writing to {self._folder}"
                raise OutputError(f"{busy}; wait for its end, or give --out another") from None

    def _require_free(self) -> None:
        with os_errors_as(OutputError, f"cannot look into {self._folder}", _OTHER_FOLDER):
            saved = self._checkpoint.exists()
            begun = self._history.exists() and self._history.stat().st_size
        if not self._resuming and (saved or begun):
            taken = self._checkpoint if saved else self._history
            resume = f", or continue with --resume {self._folder}" if saved else ""
            raise OutputError(f"{taken} exists already{_OTHER_FOLDER}{resume}")

    def release(self) -> None:
        """Let another training have the folder."""
        self._lock.release()

    def start(self, backend: str, recipe: Recipe, dataset: Dataset) -> None:
        self._backend, self._recipe = backend, recipe
        if not self._group.reports:
            return
        with os_errors_as(OutputError, f"cannot write {self._folder}", _OTHER_FOLDER):
            self._folder.mkdir(parents=True, exist_ok=True)
        self._hold()
        self._require_free()

    def stop(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal: stop between two steps; at once if nothing is lost, or at the second."""
        if self._signal is not None or not self._worth_waiting:
            leave(number)
        self._signal = number

    def paused(self, progress: Progress, state: State) -> None:
        on_time = self.every is not None and progress.step % self.every == 0
        # read once: a signal after this is for the next time; one process's is for all
        number = max(self._group.gather(self._signal or 0)) or None
        epoch_begins = self._group.reports and (not self._saved or progress.batch == 0)
        if not self._saved:
            if self._resuming and progress.epoch > self._recipe.epochs:
                return
            if self._group.reports:
                self._begin(progress.step)
        if epoch_begins:  # at first, since a killed run may have written more than its checkpoint
            records = [dataclasses.asdict(record) for record in progress.records]
            lines = [json.dumps(record, allow_nan=False) + "\n" for record in records]
            write_whole(self._history, "".join(lines).encode())
        if self._group.reports and (epoch_begins or on_time or number is not None):
            checkpoint = progress.checkpoint(state, self._backend, self._versions)
            write_checkpoint(self._checkpoint, checkpoint)
        self._saved, self._worth_waiting = True, self._saved
        if number is not None:
            hint = f"continue with --resume {self._folder}"
            raise StoppedError(f"stopped after {progress}; {hint}", number)

    def _begin(self, step: int) -> None:
        """Write the recipe, and who makes the steps from the one after `step` on."""
        recipe = self._recipe.to_json()
        who = {"backend": self._backend, **{name: recipe[name] for name in _HOW}}
        who["versions"] = self._versions
        made = [entry for entry in self._made() if entry["from_step"] <= step]
        if not made or {**made[-1], **who} != made[-1]:
            made.append({"from_step": step + 1, **who})
        data = None
        if self._recipe.dataset != "digits":
            data = str(data_directory(self._recipe.data_dir).resolve())
        values = {"schema": 1, "backend": self._backend, **recipe, "data": data, "made": made}
        text = json.dumps(values, indent=2)
        write_whole(self._recipe_file, f"{text}\n".encode())

    def _made(self) -> list[dict[str, Any]]:
        """Return who made the steps so far, as the folder has it; nothing from earlier versions."""
        if not self._recipe_file.exists():
            return []
        try:
            made = json.loads(self._recipe_file.read_bytes()).get("made", [])
            return [{**entry, "from_step": int(entry["from_step"])} for entry in made]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise OutputError(f"{self._recipe_file} is damaged; remove it") from None


def data_of_run(folder: Path) -> Path | None:
    """Return the folder where a run had its data; None if it is not known, or no longer there."""
    try:
        data = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8"))["data"]
        return Path(data) if Path(data).is_dir() else None
    except (OSError, ValueError, KeyError, TypeError):  # an earlier version's, or none
        return None
