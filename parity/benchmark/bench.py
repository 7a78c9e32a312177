"""Which subject is how fast: in turns, each a process of its own, with its losses checked.

In every round each arm has its turn, in random order; ratios are taken round by round. Each turn
is a process of its own, with the same images, initial weights, batch order and number of threads,
so that the intervals hold what two processes that run the same differ by (Kalibera and Jones 2013,
"Rigorous benchmarking in reasonable time"). The last arm runs twice, which shows the noise.
"""

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import psutil

from parity.benchmark.load import Others
from parity.benchmark.process import ProcessLostError, call
from parity.benchmark.result import PHASES, PRODUCT_SIZE, Benchmark, Measured, Phase, Timed
from parity.contract.data.datasets import Split, pixels, read_dataset
from parity.contract.errors import RecipeError
from parity.contract.interrupts import cleaning_up
from parity.contract.recipe import Recipe, require_integer
from parity.contract.state import initial_state
from parity.subjects.environment import environment
from parity.subjects.oracle import OracleSession
from parity.subjects.subject import Subject, unknown
from parity.subjects.workers import close_workers

TUTORIAL = "tutorial"
"""The arm that is the tutorial's own loop, on the CPU."""

ARMS = (TUTORIAL, *map(str, Subject.all()))
"""Everything that can be timed."""

LOSS_LIMITS = {"float32": 1e-4, "float64": 1e-10}
"""Largest relative error of the first epoch's loss, against float64 by hand.

In float32 trainings drift apart by rounding; the losses of an epoch still agree to five digits. A
batch left out is above 1e-4 of an epoch's loss, another order of the batches 1e-2."""

_LEAST_ROUNDS = 6
"""Of fewer, not even their smallest and largest hold the median with 95 % confidence."""

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

Progress = Callable[[str, int, int], None]
"""Called with what is done, the round and the number of rounds."""


def bench(
    *,
    arms: Sequence[str] = ARMS,
    phases: Sequence[Phase] = PHASES,
    batch_sizes: Sequence[int] = (64,),
    rounds: int = 9,
    threads: int | None = None,
    slowdown: float = 0.0,
    progress: Progress = lambda *_: None,
    **recipe: Any,
) -> Benchmark:
    """Time each arm, a subject or `tutorial`, against the first, as this module describes.

    Each has `rounds` turns at each batch size, with `threads` threads (default: one for each core).
    Where `slowdown` is not 0, the last arm runs a third time, idling this fraction of its time.
    `recipe` is dataset, data_dir, limit, seed, device and dtype, as Recipe has them; `progress` is
    called before each turn.

    Raises:
        RecipeError: an option has a value that is not allowed.
        DataError, DeviceError: data set, device or compiler is not there.
    """
    default = Recipe(**recipe, batch_size=64, mode="auto", kernel="auto")
    facts = environment([], default)
    cores = facts.get("cores usable", facts["cores"])
    result = Benchmark(
        command=facts.pop("command"),
        recipe=default,
        threads=cores if threads is None else threads,
        rounds=rounds,
        phases=tuple(phases),
        arms=tuple(map(_arm, arms)),
        slowdown=slowdown,
        environment=facts,
    )
    _require_options(result, batch_sizes, cores)
    train = read_dataset(default.dataset, default.data_dir).first(default.limit).train
    result.images = len(train)
    for size in batch_sizes:
        progress("losses by hand", 0, rounds)
        others = Others()
        sized = dataclasses.replace(default, batch_size=size)
        expected = _losses_by_hand(sized, train, epoch="epoch" in phases)
        result.others_before.append(others.cores())
        with cleaning_up():
            _take_turns(result, sized, expected, progress)
    return result


def _arm(text: str) -> str:
    """Return the name of an arm; raise RecipeError, which names all, for others."""
    if text == TUTORIAL:
        return text
    name, _, _ = text.partition("@")
    own = name.removesuffix(":layers") if name.count(":") == 2 else name
    if own not in ARMS or own == TUTORIAL:
        raise unknown("arm", text, ARMS)
    return str(Subject.parse(text))


def _require_options(result: Benchmark, batch_sizes: Sequence[int], cores: int) -> None:
    """Raise RecipeError, or DeviceError, unless what is asked for can be timed here."""
    lists = {"arms": result.arms, "phases": result.phases, "batch_sizes": batch_sizes}
    for name, values in lists.items():
        if not values or len(set(values)) < len(values):
            raise RecipeError(f"{name} must be one or more, and all different, got {list(values)}")
    if not set(result.phases) <= set(PHASES):
        raise RecipeError(f"phases must be of {', '.join(PHASES)}, got {list(result.phases)}")
    require_integer("rounds", result.rounds, at_least=_LEAST_ROUNDS)
    require_integer("threads", result.threads, at_least=1)
    if result.threads > cores:
        raise RecipeError(f"threads must be at most {cores}, the cores here, got {result.threads}")
    if not 0 <= result.slowdown <= 10:
        raise RecipeError(f"slowdown must be from 0 to 10, got {result.slowdown!r}")
    if TUTORIAL in result.arms and result.recipe.dtype != "float32":
        raise RecipeError(
            f"{TUTORIAL} computes in float32, not {result.recipe.dtype}; leave it out"
        )
    for size in batch_sizes:
        dataclasses.replace(result.recipe, batch_size=size)
    for arm in result.arms:
        if arm != TUTORIAL:
            Subject.parse(arm).resolve(result.recipe)


def _take_turns(
    result: Benchmark, recipe: Recipe, expected: list[float], progress: Progress
) -> None:
    """Give each arm a turn in each round; an arm has no more after one that does not count."""
    timed = result.timed[recipe.batch_size] = {arm: Timed() for arm in result.runs()}
    order = np.random.RandomState(recipe.seed)
    for number in range(result.rounds):
        counting = [arm for arm, found in timed.items() if found.failed is None]
        for arm in order.permutation(counting).tolist():
            progress(arm, number, result.rounds)
            name, slowdown = result.runs()[arm]
            backend = name.partition(":")[0]
            options = name, recipe, result.phases, slowdown
            bind = backend in ("torch", TUTORIAL) and "@" not in name  # its processes share cores
            others = Others()
            try:
                facts, losses, found = call(measure, *options, threads=result.threads, bind=bind)
            except ProcessLostError as error:
                timed[arm].failed = str(error)
                continue
            result.others.append(others.cores())
            result.environment[backend] = facts
            timed[arm].rounds.append(found)
            timed[arm].failed = _wrong(losses, expected, LOSS_LIMITS[recipe.dtype])


def _wrong(losses: list[float], expected: list[float], limit: float) -> str | None:
    """Say which of a turn's first losses is not the one by hand; None if all of them are."""
    first = zip(losses[: len(expected)], expected, strict=True)
    for number, (got, loss) in enumerate(first, start=1):
        if not abs(got - loss) <= limit * abs(loss):
            what = f"step {number} on one batch" if number <= CHECKED_STEPS else "first epoch"
            return f"the loss of its {what} is {got:.9g}, should be {loss:.9g}"
    return None if all(map(math.isfinite, losses)) else "the loss of an epoch is not finite"


def _losses_by_hand(recipe: Recipe, train: Split, *, epoch: bool) -> list[float]:
    """Return the losses of the first steps on one batch, then of the first epoch if asked."""
    images, order = pixels(train.images, recipe.dtype), list(recipe.batches(1, len(train)))

    def losses(batches: Sequence[np.ndarray]) -> list[float]:
        session = OracleSession(recipe, initial_state(recipe.seed, recipe.dtype))
        return [session.steps(images, train.labels, batch[None]).item() for batch in batches]

    return losses(order[:1] * CHECKED_STEPS) + ([sum(losses(order))] if epoch else [])


@contextlib.contextmanager
def _ended() -> Iterator[None]:
    """Let the processes of an arm end before its own, whose work theirs is counted as."""
    try:
        yield
    finally:
        close_workers()


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
    with _ended(), opened as work:
        losses, resident = [], psutil.Process().memory_info
        first_step = _seconds(lambda n: losses.extend(work.steps(n).tolist()), 1, slowdown)
        memory = resident().rss
        losses.extend(work.steps(CHECKED_STEPS - 1).tolist())
        calls: dict[str, Callable[[int], object]] = {
            "product": lambda n: work.product(PRODUCT_SIZE, n),
            "forward": work.forward,
            "step": work.steps,
            "epoch": lambda _: losses.append(work.epoch()),
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
