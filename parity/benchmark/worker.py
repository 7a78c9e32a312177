"""An arm's turn in a benchmark, for a process of its own: it computes, and times that."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from parity.benchmark.result import PHASES, PRODUCT_SIZE, Measured
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

_WINDOW, _TRIED = 0.2, 4
"""Seconds that forward passes, steps or products are timed together, and how many of them are
timed to find out how many that is."""


def measure(
    arm: str, recipe: Recipe, phases: Sequence[str], slowdown: float
) -> tuple[dict[str, Any], list[float], Measured]:
    """Warm an arm up, and time a matrix product and each phase; idle for `slowdown` times as long.

    Returns what the arm computes with; its losses, of the first CHECKED_STEPS steps on one batch
    and then of each epoch; and what was measured.
    """
    subject = Subject.parse("torch:eager" if arm == TUTORIAL else arm)
    dataset = read_dataset(recipe.dataset, recipe.data_dir).first(recipe.limit)
    trained = recipe, initial_state(recipe.seed, recipe.dtype), dataset
    if arm == TUTORIAL:
        from parity.benchmark.tutorial import TutorialWorkload

        opened = contextlib.nullcontext(TutorialWorkload(*trained))
    else:
        opened = subject.workload(*trained)
    with opened as work:
        losses, resident = [], psutil.Process().memory_info
        first_step = _seconds(lambda n: losses.extend(work.steps(n).tolist()), 1, slowdown)
        memory = resident().rss
        losses.extend(work.steps(CHECKED_STEPS - 1).tolist())
        calls: dict[str, Callable[[int], object]] = {
            "product": lambda n: work.product(PRODUCT_SIZE, n),
            "forward": work.forward,
            "step": work.steps,
            "epoch": lambda _: losses.append(work.epoch().loss),
        }
        times: dict[str, list[float]] = {phase: [] for phase in ("product", *phases)}
        repeats = dict.fromkeys(times, 1)
        for phase in times:
            calls[phase](1)
            if phase != "epoch":
                repeats[phase] = math.ceil(_WINDOW / _seconds(calls[phase], _TRIED, slowdown))
        programs = work.programs()
        for _ in range(_TIMES):
            for phase, found in times.items():
                if sum(found) < _ENOUGH:
                    found.append(_seconds(calls[phase], repeats[phase], slowdown))
                    memory = max(memory, resident().rss)
        measured = {
            "first_step": first_step,
            **dict.fromkeys(PHASES),
            **{phase: statistics.median(found) for phase, found in times.items()},
            "loss": losses[CHECKED_STEPS] if "epoch" in phases else None,
            "retraces": work.programs() - programs,
            "memory": memory,
            "device_memory": work.device_memory(),
        }
        return environment([subject], recipe)[subject.backend_name], losses, measured


def _seconds(call: Callable[[int], object], repeats: int, slowdown: float) -> float:
    """Return the seconds of each repeat, with the idling after them."""
    started = time.perf_counter()
    call(repeats)
    if slowdown:
        time.sleep((time.perf_counter() - started) * slowdown)
    return (time.perf_counter() - started) / repeats
