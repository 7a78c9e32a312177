"""An arm's turn in a benchmark, for a process of its own: it computes, and times that."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import psutil

from parity.benchmark.result import PHASES, PRODUCT_SIZE, Measured
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

_ENOUGH = 3.0
"""Seconds of a phase's times in a turn after which there are no more of them, as of long epochs."""

_WINDOW = 0.2
"""Seconds that forward passes, steps or products are timed together."""

_TRIED = 4
"""How many are timed to find out how many fill a window."""


class Turn(NamedTuple):
    """What an arm computed, and what was measured of it."""

    environment: dict[str, Any]
    """What it computes with."""
    losses: list[float]
    """Of the first CHECKED_STEPS steps on one batch, then of each epoch."""
    measured: Measured


def measure(arm: str, recipe: Recipe, phases: Sequence[str], slowdown: float) -> Turn:
    """Warm an arm up, time each phase, and return what was found.

    Args:
        arm: a subject, or `tutorial`.
        recipe: what to train on, and how.
        phases: what to time, besides a matrix product.
        slowdown: what to idle on purpose after computing, as a fraction of the time for that.
    """
    subject = Subject.parse("torch:eager" if arm == TUTORIAL else arm)
    with _open(arm, recipe) as work:
        clock, losses = _Clock(slowdown), []
        calls: dict[str, Callable[[int], object]] = {
            "product": lambda repeats: work.product(PRODUCT_SIZE, repeats),
            "forward": work.forward,
            "step": work.steps,
            "epoch": lambda _: losses.append(work.epoch().loss),
        }
        first_step = clock.time(lambda repeats: losses.extend(work.steps(repeats).tolist()))
        losses.extend(work.steps(CHECKED_STEPS - 1).tolist())
        calls = {phase: calls[phase] for phase in ("product", *phases)}
        repeats = {phase: clock.fill_window(phase, call) for phase, call in calls.items()}
        programs = work.programs()
        seconds: dict[str, list[float]] = {phase: [] for phase in calls}
        for _ in range(_TIMES):
            for phase, found in seconds.items():
                if sum(found) < _ENOUGH:
                    found.append(clock.time(calls[phase], repeats[phase]))
        measured = {
            "first_step": first_step,
            **dict.fromkeys(PHASES),
            **{phase: statistics.median(found) for phase, found in seconds.items()},
            "loss": losses[CHECKED_STEPS] if "epoch" in phases else None,
            "retraces": work.programs() - programs,
            "memory": clock.memory,
            "device_memory": work.device_memory(),
        }
        return Turn(environment([subject], recipe)[subject.backend_name], losses, measured)


def _open(arm: str, recipe: Recipe) -> contextlib.AbstractContextManager[Workload]:
    """Open an arm's workload on the recipe's data set."""
    dataset = read_dataset(recipe.dataset, recipe.data_dir).first(recipe.limit)
    state = initial_state(recipe.seed, recipe.dtype)
    if arm != TUTORIAL:
        return Subject.parse(arm).workload(recipe, state, dataset)
    from parity.benchmark.tutorial import TutorialWorkload

    return contextlib.nullcontext(TutorialWorkload(recipe, state, dataset))


class _Clock:
    """Times calls, idles after each if it has to, and notes the memory in use."""

    def __init__(self, slowdown: float) -> None:
        self._slowdown = slowdown
        self.memory = 0
        """The most resident bytes that were seen after something was timed."""

    def time(self, call: Callable[[int], object], repeats: int = 1) -> float:
        """Return the seconds of each repeat."""
        started = time.perf_counter()
        call(repeats)
        if self._slowdown:
            time.sleep((time.perf_counter() - started) * self._slowdown)
        seconds = time.perf_counter() - started
        self.memory = max(self.memory, psutil.Process().memory_info().rss)
        return seconds / repeats

    def fill_window(self, phase: str, call: Callable[[int], object]) -> int:
        """Warm a phase up; return how many of it to time together."""
        call(1)
        return 1 if phase == "epoch" else math.ceil(_WINDOW / self.time(call, _TRIED))
