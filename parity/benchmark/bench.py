"""Which subject is how fast: in turns, each a process of its own, with its losses checked."""

import functools
import math
import operator
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.benchmark.process import ProcessLostError, call
from parity.benchmark.result import PHASES, Benchmark, Measurement, Phase, Timed
from parity.benchmark.worker import CHECKED_STEPS, TUTORIAL, Turn, measure
from parity.contract import backend as protocols
from parity.contract.data.datasets import Dataset, pixels, read_dataset
from parity.contract.errors import RecipeError
from parity.contract.interrupts import cleaning_up
from parity.contract.recipe import DatasetName, Device, DType, Recipe, require_integer
from parity.contract.state import initial_state
from parity.subjects.environment import environment
from parity.subjects.subject import Subject

ARMS = (TUTORIAL, *map(str, Subject.all()))
"""Everything that can be timed."""

LOSS_LIMITS = {"float32": 1e-4, "float64": 1e-10}
"""Largest relative error of the first epoch's loss, against float64 by hand.

In float32 trainings drift apart by rounding; the losses of an epoch still agree to five digits. A
batch left out is above 1e-4 of an epoch's loss, another order of the batches 1e-2."""

_LEAST_ROUNDS = 6
"""Of fewer, not even their smallest and largest hold the median with 95 % confidence."""

Report = Callable[[str, int, int], None]
"""Called with what is done, the round and the number of rounds."""


class _WrongLossError(Exception):
    """An arm does not compute what it should; the message says which loss."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to time, and how.

    Raises:
        RecipeError: a field has a value that is not allowed.
        DeviceError: an arm's device, or the compiler that it needs, is not on this machine.
    """

    arms: Sequence[str] = ARMS
    """Subjects, or `tutorial`; the others are compared with the first."""
    phases: Sequence[Phase] = PHASES
    batch_sizes: Sequence[int] = (64,)
    """Images in a step."""
    rounds: int = 9
    """Turns of each arm."""
    threads: int | None = None
    """Of each arm. Default: as many as there are cores."""
    slowdown: float = 0.0
    """If it is not 0, the last arm runs a third time, and idles this fraction of its time."""
    dataset: DatasetName = "mnist"
    data_dir: Path | None = None
    limit: int | None = None
    seed: int = 0
    """Of weights and batch order."""
    device: Device = "auto"
    """Where to compute; `tutorial` computes on the CPU."""
    dtype: DType = "float32"
    command: str = ""
    """What is reported as the command that made the figures."""

    def __post_init__(self) -> None:
        names = [arm if arm == TUTORIAL else str(Subject.parse(arm)) for arm in self.arms]
        object.__setattr__(self, "arms", tuple(names))
        for name in ("arms", "phases", "batch_sizes"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise RecipeError(
                    f"{name} must be one or more, and all different, got {list(values)}"
                )
        if not set(self.phases) <= set(PHASES):
            raise RecipeError(f"phases must be of {', '.join(PHASES)}, got {list(self.phases)}")
        require_integer("rounds", self.rounds, at_least=_LEAST_ROUNDS)
        require_integer("threads", self.cores, at_least=1)
        if self.cores > _usable():
            raise RecipeError(
                f"threads must be at most {_usable()}, the cores here, got {self.cores}"
            )
        if not 0 <= self.slowdown <= 10:
            raise RecipeError(f"slowdown must be from 0 to 10, got {self.slowdown!r}")
        for size in self.batch_sizes:
            self.recipe(size)
        for arm in self.arms:
            _require_arm(arm, self.recipe())

    @property
    def cores(self) -> int:
        """Threads of each arm."""
        return _usable() if self.threads is None else self.threads

    @property
    def again(self) -> str:
        """The last arm once more, to show how far equals differ."""
        return f"{self.arms[-1]} again"

    @property
    def slowed(self) -> str | None:
        """The last arm once more, made slower on purpose; None where that was not asked for."""
        return f"{self.arms[-1]} slowed by {self.slowdown:.0%}" if self.slowdown else None

    def recipe(self, batch_size: int = 64) -> Recipe:
        """Return the recipe of every arm."""
        names = ("dataset", "data_dir", "limit", "seed", "device", "dtype")
        return Recipe(batch_size=batch_size, **{name: getattr(self, name) for name in names})

    def runs(self) -> dict[str, tuple[str, float]]:
        """Return what each arm runs, and the slowdown; the copies of the last one included."""
        runs = {arm: (arm, 0.0) for arm in self.arms} | {self.again: (self.arms[-1], 0.0)}
        return runs | ({self.slowed: (self.arms[-1], self.slowdown)} if self.slowed else {})


def bench(*, progress: Report = lambda *_: None, **options: Any) -> Benchmark:
    """Time subjects, and the tutorial's loop, against each other.

    In every round each arm has its turn, in random order; ratios are taken round by round. Each
    turn is a process of its own, with the same images, initial weights and batch order, and as many
    threads as the others. So the intervals hold what two processes that run the same differ by,
    if only for where their arrays lie (Kalibera and Jones 2013, "Rigorous benchmarking in
    reasonable time"). The last arm runs twice, which shows the noise. An arm does not count if its
    process ends, or its losses are not those of float64 by hand.

    Args:
        progress: called before each turn.
        options: fields of Plan.

    Raises:
        RecipeError: an option has a value that is not allowed.
        DataError, DeviceError: data set or device is not there.
    """
    plan = Plan(**options)
    dataset = read_dataset(plan.dataset, plan.data_dir).first(plan.limit)
    arms = {size: _Arms(plan, plan.recipe(size), dataset) for size in plan.batch_sizes}
    timed = {size: found.run(progress) for size, found in arms.items()}
    environments = [found.environment for found in arms.values()]
    return Benchmark(
        command=plan.command,
        recipe=plan.recipe(),
        images=len(dataset.train),
        threads=plan.cores,
        rounds=plan.rounds,
        phases=tuple(plan.phases),
        environment=functools.reduce(operator.or_, environments, environment([], plan.recipe())),
        arms=tuple(plan.arms),
        again=plan.again,
        slowed=plan.slowed,
        timed=timed,
    )


class _Arms:
    """The arms at one batch size."""

    def __init__(self, plan: Plan, recipe: Recipe, dataset: Dataset) -> None:
        self._plan, self._recipe, self._dataset = plan, recipe, dataset
        self.environment: dict[str, Any] = {}
        """What each backend computes with."""

    def run(self, report: Report) -> dict[str, Timed]:
        """Return what was measured of each arm."""
        rounds = self._plan.rounds
        report("losses by hand", 0, rounds)
        expected = self._by_hand()
        timed = {arm: Timed() for arm in self._plan.runs()}
        order = np.random.RandomState(self._recipe.seed)
        with cleaning_up():
            for number in range(rounds):
                counting = [arm for arm, found in timed.items() if found.failed is None]
                for arm in order.permutation(counting).tolist():
                    report(arm, number, rounds)
                    try:
                        timed[arm].measurements.append(self._turn(arm, expected))
                    except (ProcessLostError, _WrongLossError) as error:
                        timed[arm].failed = str(error)
        return timed

    def _turn(self, arm: str, expected: list[float]) -> Measurement:
        """Return what a process of an arm measures, once its losses are found to be right."""
        name, slowdown = self._plan.runs()[arm]
        backend = name.partition(":")[0]
        turn: Turn = call(
            measure,
            name,
            self._recipe,
            self._plan.phases,
            slowdown,
            threads=self._plan.cores,
            bind=backend in ("torch", TUTORIAL),
        )
        self.environment[backend] = turn.environment
        self._check(turn.steps, turn.epochs, expected)
        return turn.measurement

    def _check(self, steps: list[float], epochs: list[float], expected: list[float]) -> None:
        """Raise _WrongLossError unless the losses of a warm-up are those by hand."""
        losses = steps + epochs[:1]
        for number, (got, loss) in enumerate(zip(losses, expected, strict=True), start=1):
            if not abs(got - loss) <= LOSS_LIMITS[self._recipe.dtype] * abs(loss):
                what = "first epoch" if number > len(steps) else f"step {number} on one batch"
                raise _WrongLossError(f"the loss of its {what} is {got:.9g}, should be {loss:.9g}")
        if not all(map(math.isfinite, epochs)):
            raise _WrongLossError("the loss of an epoch is not finite")

    def _by_hand(self) -> list[float]:
        """Return the losses of the first steps on one batch, then of the first epoch if asked."""
        recipe, train = self._recipe, self._dataset.train
        start = initial_state(recipe.seed, recipe.dtype)
        order = list(recipe.batches(1, len(train)))
        oracle = Subject.parse("numpy")
        with oracle.session(recipe, start) as again, oracle.session(recipe, start) as once:

            def step(session: protocols.Session, batch: np.ndarray) -> float:
                return session.step(pixels(train.images[batch], recipe.dtype), train.labels[batch])

            losses = [step(again, order[0]) for _ in range(CHECKED_STEPS)]
            if "epoch" in self._plan.phases:
                losses.append(sum(step(once, batch) for batch in order))
        return losses


def _usable() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _require_arm(arm: str, recipe: Recipe) -> None:
    if arm == TUTORIAL:
        if recipe.dtype != "float32":
            raise RecipeError(f"{arm} computes in float32, not {recipe.dtype}; leave it out")
    elif not isinstance(Subject.parse(arm).backend, protocols.Timed):
        raise RecipeError(f"{arm} is not made to be timed; name other arms")
    else:
        Subject.parse(arm).resolve(recipe)
