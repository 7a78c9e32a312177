"""An arm's turn in a benchmark, for a process of its own: it computes, and times that."""

import contextlib
import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import psutil

from parity.benchmark.result import PRODUCT_SIZE, Measurement, Phase
from parity.contract.backend import Workload
from parity.contract.data.datasets import read_dataset
from parity.contract.recipe import Recipe
from parity.contract.state import initial_state
from parity.subjects.environment import environment
from parity.subjects.subject import Subject

TUTORIAL = "tutorial"
"""The arm that is the tutorial's own loop, on the CPU."""

CHECKED_STEPS = 5
"""First steps on one batch, whose losses are compared with those by hand."""

_TIMES = 5
"""How often each phase is timed in a turn, one after the other; it is the median that counts.

What slows a shared machine for a second or two then meets few of a phase's times."""

_EPOCHS = 3.0
"""Seconds of epochs in a turn after which there are no more of them."""

_WINDOW = 0.2
"""Seconds that forward passes, steps or products are timed together."""

_TRIED, _MOST = 4, 2000
"""How many are timed to find out how many fill a window, and the most that are put into one."""


class Turn(NamedTuple):
    """What an arm computed, and what was measured of it."""

    environment: dict[str, Any]
    """What it computes with."""
    steps: list[float]
    """Losses of the first CHECKED_STEPS steps on one batch."""
    epochs: list[float]
    """Losses of the epochs, the warm-up's first; of none if they are not timed."""
    measurement: Measurement


def measure(arm: str, recipe: Recipe, phases: Sequence[Phase], slowdown: float) -> Turn:
    """Warm an arm up, time each phase, and return what was found.

    Args:
        arm: a subject, or `tutorial`.
        recipe: what to train on, and how.
        phases: what to time, besides a matrix product.
        slowdown: what to idle on purpose after computing, as a fraction of the time for that.
    """
    subject = Subject.parse("torch:eager" if arm == TUTORIAL else arm)
    with _open(arm, recipe) as work:
        clock = _Clock(work, slowdown)
        steps: list[float] = []
        first_step = clock.time(lambda: steps.extend(work.steps(1).tolist()))
        steps.extend(work.steps(CHECKED_STEPS - 1).tolist())
        first_forward = clock.time(lambda: work.forward(1))
        clock.warm_up(phases)
        programs = work.programs()
        seconds = clock.medians(("product", *phases))
        return Turn(
            environment([subject], recipe)[subject.backend_name],
            steps,
            clock.losses,
            Measurement(
                first_step=first_step,
                first_forward=first_forward,
                product=seconds["product"],
                forward=seconds.get("forward"),
                step=seconds.get("step"),
                epoch=seconds.get("epoch"),
                loss=clock.losses[0] if clock.losses else None,
                retraces=work.programs() - programs,
                memory=clock.memory,
                device_memory=work.device_memory(),
            ),
        )


def _open(arm: str, recipe: Recipe) -> contextlib.AbstractContextManager[Workload]:
    """Open an arm's workload on the recipe's data set."""
    dataset = read_dataset(recipe.dataset, recipe.data_dir).first(recipe.limit)
    state = initial_state(recipe.seed, recipe.dtype)
    if arm != TUTORIAL:
        return Subject.parse(arm).workload(recipe, state, dataset)
    from parity.benchmark.tutorial import TutorialWorkload

    return contextlib.nullcontext(TutorialWorkload(recipe, state, dataset))


class _Clock:
    """Times what an arm does, idles if it has to, and notes losses and the memory in use."""

    def __init__(self, work: Workload, slowdown: float) -> None:
        self._work, self._slowdown = work, slowdown
        self._several: dict[str, Callable[[int], object]] = {
            "product": lambda repeats: work.product(PRODUCT_SIZE, repeats),
            "forward": work.forward,
            "step": work.steps,
        }
        self._windows: dict[str, int] = {}
        """How many of a phase are timed together."""
        self.losses: list[float] = []
        """Of each epoch."""
        self.memory = 0
        """The most resident bytes that were seen after something was timed."""

    def warm_up(self, phases: Sequence[str]) -> None:
        """Find out how many of each phase fill a window; train for a first epoch."""
        self._work.product(PRODUCT_SIZE, 1)
        for phase, function in self._several.items():
            each = self.time(functools.partial(function, _TRIED)) / _TRIED
            self._windows[phase] = min(_MOST, math.ceil(_WINDOW / each))
        if "epoch" in phases:
            self._epoch()

    def medians(self, phases: Sequence[str]) -> dict[str, float]:
        """Time phases in turns, and return the median seconds of each."""
        seconds: dict[str, list[float]] = {phase: [] for phase in phases}
        for _ in range(_TIMES):
            for phase, found in seconds.items():
                if phase != "epoch":
                    repeats = self._windows[phase]
                    several = functools.partial(self._several[phase], repeats)
                    found.append(self.time(several) / repeats)
                elif sum(found) < _EPOCHS:
                    found.append(self._epoch())
        return {phase: statistics.median(found) for phase, found in seconds.items()}

    def time(self, function: Callable[[], object]) -> float:
        """Return the seconds of a call."""
        started = time.perf_counter()
        function()
        return self._idle(time.perf_counter() - started)

    def _epoch(self) -> float:
        found = self._work.epoch()
        self.losses.append(found.loss)
        return self._idle(found.seconds)

    def _idle(self, seconds: float) -> float:
        """Idle a fraction of what computing took; return the seconds of both."""
        started = time.perf_counter()
        if self._slowdown:
            time.sleep(seconds * self._slowdown)
            seconds += time.perf_counter() - started
        self.memory = max(self.memory, psutil.Process().memory_info().rss)
        return seconds
