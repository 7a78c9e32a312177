"""The process of an arm's turn in a benchmark: it computes on request, and says how long that took.

The first line on standard input says what to be; each further one asks for a measurement, and each
is answered on standard output, all in JSON. It ends where the input does.
"""

import dataclasses
import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from parity.contract.backend import Workload
from parity.contract.data.datasets import Dataset, Split, read_dataset
from parity.contract.recipe import Recipe
from parity.contract.run.history import Epoch
from parity.contract.run.observers import Observer
from parity.contract.run.progress import Progress
from parity.contract.state import State, initial_state
from parity.subjects.environment import environment
from parity.subjects.subject import Subject

SEED = "seed"
"""The arm that is the tutorial's own loop, on the CPU."""

PRODUCT_SIZE = 1024
"""Rows and columns of the matrices whose product shows what the machine can do."""

PRODUCT = "product"
"""The phase that is such a product."""

CHECKED_STEPS = 5
"""First steps on the batch, whose losses are told."""

_WINDOW = 0.2
"""Seconds that forward passes, steps or products are timed together."""

_TRIED, _MOST = 4, 2000
"""How many are timed to find out how many fill a window, and the most that are put into one."""

_TESTED = 250
"""Test images: an epoch's time leaves the test out, and it should not take long either."""


class _Pipe:
    """Requests from standard input; answers to standard output, where libraries then cannot."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def requests(self) -> Iterator[dict[str, Any]]:
        """Yield what is asked."""
        return map(json.loads, iter(sys.stdin.readline, ""))

    def answer(self, **values: Any) -> None:
        """Answer the last request."""
        self._answers.write(json.dumps(values) + "\n")
        self._answers.flush()


class _Turn:
    """Whose turn it is: answers requests, until one asks for an epoch."""

    def __init__(self, pipe: _Pipe, workload: Workload, *, slowdown: float) -> None:
        self._pipe, self._workload, self.slowdown = pipe, workload, slowdown
        self._repeats: dict[str, int] = {}

    def hello(self, **facts: Any) -> None:
        """Make the first steps and the first forward pass, and say what they took and lost."""
        first_step = self._time("step", 1)
        losses = [*self._losses, *self._workload.steps(CHECKED_STEPS - 1).tolist()]
        first = {"step": first_step, "forward": self._time("forward", 1)}
        self._time(PRODUCT, 1)
        for phase in (*first, PRODUCT):
            each = self._time(phase, _TRIED) / _TRIED
            self._repeats[phase] = min(_MOST, math.ceil(_WINDOW / each))
        facts["product size"] = PRODUCT_SIZE
        self._pipe.answer(facts=facts, first=first, losses=losses)

    def wait(self) -> None:
        """Answer requests until an epoch is asked for; leave the process when they end."""
        for request in self._pipe.requests():
            phase = request["measure"]
            if phase == "epoch":
                return
            if phase == "state":
                self._tell()
            else:
                self._pipe.answer(seconds=self._measure(phase))
        sys.exit(0)

    def epoch(self, record: Epoch) -> None:
        """Answer the request for an epoch."""
        self._pipe.answer(seconds=record.seconds, loss=record.loss, resident=_memory("VmRSS"))

    def _measure(self, phase: str) -> float:
        """Return the seconds of one, timed together with so many that they fill a window."""
        repeats = self._repeats[phase]
        return self._time(phase, repeats) / repeats

    def _time(self, phase: str, repeats: int) -> float:
        started = time.perf_counter()
        if phase == "forward":
            self._workload.forward(repeats)
        elif phase == "step":
            self._losses = self._workload.steps(repeats).tolist()
        else:
            self._workload.product(PRODUCT_SIZE, repeats)
        time.sleep((time.perf_counter() - started) * self.slowdown)
        return time.perf_counter() - started

    def _tell(self) -> None:
        self._pipe.answer(
            programs=self._workload.programs(),
            peak=_memory("VmHWM"),
            device_peak=self._workload.device_memory(),
        )


class _Turns(Observer):
    """Lets a training wait for its turn before each epoch, and idle during it if it has to."""

    def __init__(self, turn: _Turn) -> None:
        self._turn, self._since = turn, 0.0

    def paused(self, progress: Progress, state: State) -> None:
        if progress.batch == 0:
            self._turn.wait()
        else:
            time.sleep((time.perf_counter() - self._since) * self._turn.slowdown)
        self._since = time.perf_counter()

    def epoch(self, record: Epoch) -> None:
        self._turn.epoch(record)


def main() -> int:
    """Be an arm, as the first request says."""
    pipe = _Pipe()
    arm = next(pipe.requests())
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if cores:
        os.sched_setaffinity(0, cores[: arm["threads"]])
    recipe = dataclasses.replace(Recipe.from_json(arm["recipe"]), epochs=sys.maxsize)
    read = read_dataset(recipe.dataset, recipe.data_dir).first(recipe.limit)
    tested = Split(read.test.images[:_TESTED], read.test.labels[:_TESTED])
    dataset = Dataset(read.name, read.train, tested)
    begin = functools.partial(_Turn, pipe, slowdown=arm["slowdown"])
    if arm["arm"] == SEED:
        _seed(recipe, dataset, begin)
    else:
        _subject(Subject.parse(arm["arm"]), recipe, dataset, begin)
    return 0


def _subject(
    subject: Subject, recipe: Recipe, dataset: Dataset, begin: Callable[[Workload], _Turn]
) -> None:
    ran = subject.resolve(recipe)
    with subject.workload(recipe, initial_state(recipe.seed, recipe.dtype), dataset) as work:
        turn = begin(work)
        turn.hello(
            images=len(dataset.train),
            backend=subject.backend_name,
            environment=_environment(subject, recipe),
            ran={"device": ran.device, "mode": ran.mode, "kernel": ran.kernel},
        )
        subject.fit(recipe, dataset, observer=_Turns(turn))


def _seed(recipe: Recipe, dataset: Dataset, begin: Callable[[Workload], _Turn]) -> None:
    from parity.benchmark.tutorial import SeedWorkload

    seed = SeedWorkload(recipe, initial_state(recipe.seed, "float32"), dataset)
    turn = begin(seed)
    recipe = dataclasses.replace(recipe, device="cpu")
    turn.hello(
        images=len(dataset.train),
        backend=SEED,
        environment=_environment(Subject.parse("torch:eager"), recipe),
        ran={"device": "cpu", "mode": "eager", "kernel": "layers"},
    )
    turn.wait()
    for record in seed.epochs():
        turn.epoch(record)
        turn.wait()


def _environment(subject: Subject, recipe: Recipe) -> dict[str, Any]:
    return environment([subject], recipe)[subject.backend_name]


def _memory(what: str) -> int | None:
    """Return the process's resident bytes, VmRSS, or the most of them, VmHWM; None elsewhere."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    [line] = [line for line in status.read_text().splitlines() if line.startswith(f"{what}:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
