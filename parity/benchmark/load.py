"""How busy other processes keep the machine while something is timed."""

import time
from typing import NamedTuple

import psutil

_LEAST = 0.2
"""Seconds below which the kernel's ticks of 10 ms say nothing."""

IDLE = 0.2
"""Cores that the daemons of an idle machine take at most."""


class _Seen(NamedTuple):
    at: float
    busy: float
    """Seconds that all usable cores have worked, for whomever."""
    own: float
    """Seconds that this process has, and those that it has waited for."""


class Others:
    """Measures the work of other processes, from its making on."""

    def __init__(self) -> None:
        self._begin = _seen()

    def cores(self) -> float | None:
        """Return how many cores they have kept busy; None after too short a time to say."""
        begin, end = self._begin, _seen()
        seconds = end.at - begin.at
        if seconds < _LEAST:
            return None
        return max(0.0, (end.busy - begin.busy - (end.own - begin.own)) / seconds)


def allowed(cores: int, threads: int) -> float:
    """Return how many cores others may keep busy beside an arm of so many threads.

    That is what an idle machine does, and half of the cores that are left but one.
    """
    return IDLE + max(0, cores - threads - 1) / 2


def _seen() -> _Seen:
    process = psutil.Process()
    usable = process.cpu_affinity() if hasattr(process, "cpu_affinity") else None
    each = psutil.cpu_times(percpu=True)
    busy = 0.0
    for times in each if usable is None else [each[core] for core in usable if core < len(each)]:
        idle = ("idle", "iowait", "guest", "guest_nice")  # guests' are among the users' already
        busy += sum(times) - sum(getattr(times, name, 0.0) for name in idle)
    return _Seen(time.perf_counter(), busy, sum(process.cpu_times()[:4]))
