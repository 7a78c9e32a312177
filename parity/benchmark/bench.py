"""Which subject is how fast: in turns, each a process of its own, with its losses checked."""

import contextlib
import dataclasses
import math
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parity.benchmark.process import Arm, ArmLostError
from parity.benchmark.result import PHASES, Benchmark, Phase, Timed, Turn
from parity.benchmark.worker import CHECKED_STEPS, PRODUCT, SEED
from parity.contract.batches import batches
from parity.contract.data.datasets import Dataset, pixels, read_dataset
from parity.contract.errors import RecipeError
from parity.contract.interrupts import cleaning_up
from parity.contract.recipe import DatasetName, Device, DType, Recipe, require_integer
from parity.contract.state import initial_state
from parity.subjects.environment import environment
from parity.subjects.oracle import OracleSession
from parity.subjects.subject import Subject

ARMS = (SEED, *map(str, Subject.all()))
"""Everything that can be timed."""

LOSS_LIMITS = {"float32": 1e-4, "float64": 1e-10}
"""Largest relative error of the first epoch's loss, against float64 by hand.

In float32 trainings drift apart by rounding; the losses of an epoch still agree to five digits. A
batch left out is above 1e-4 of an epoch's loss, another order of the batches 1e-2."""

LATER_LIMIT = 0.02
"""Largest relative distance of a later epoch's loss from the arms' median: the drift grows."""

_LEAST_ROUNDS = 6
"""Of fewer, not even their smallest and largest hold the median with 95 % confidence."""

_TIMES = 5
"""How often each phase is timed in a turn, one after the other; it is the median that counts.

What slows a shared machine for a second or two then meets few of a phase's times."""

_EPOCHS = 3.0
"""Seconds of epochs in a turn after which there are no more of them."""

Report = Callable[[str, int, int], None]
"""Called with what is done, the round and the number of rounds."""


class _WrongLossError(Exception):
    """An arm does not compute what it should; the message says which loss."""


def bench(
    *,
    arms: Sequence[str] = ARMS,
    phases: Sequence[Phase] = PHASES,
    batch_sizes: Sequence[int] = (64,),
    rounds: int = 9,
    threads: int | None = None,
    slowdown: float = 0.0,
    dataset: DatasetName = "mnist",
    data_dir: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: Device = "auto",
    dtype: DType = "float32",
    command: str = "",
    progress: Report | None = None,
) -> Benchmark:
    """Time subjects, and the tutorial's loop, against each other.

    In every round each arm has its turn, in random order; ratios are taken round by round. Each
    turn is a process of its own, with the same images, initial weights and batch order, and as many
    threads as the others. So the intervals hold what two processes that run the same differ by,
    if only for where their arrays lie (Kalibera and Jones 2013, "Rigorous benchmarking in
    reasonable time"). The last arm runs twice, which shows the noise. An arm is void whose process
    ends, or whose losses are not those of float64 by hand.

    Args:
        arms: subjects, or `seed`; the first is what the others are compared with.
        phases: what to time.
        batch_sizes: images in a step.
        rounds: turns of each arm.
        threads: of each arm; by default as many as there are cores.
        slowdown: if it is not 0, the last arm runs a third time, and idles this fraction.
        dataset: data set to train on.
        data_dir: folder of its files.
        limit: train on the first images only.
        seed: seed of weights and batch order.
        device: where to compute; `seed` computes on the CPU.
        dtype: precision to compute in.
        command: what is reported as the command that made the figures.
        progress: told how it goes.

    Raises:
        RecipeError: an argument has a value that is not allowed.
        DataError, DeviceError: data set or device is not there.
    """
    recipe = Recipe(
        dataset=dataset,
        data_dir=data_dir,
        epochs=1,
        limit=limit,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    threads = _usable() if threads is None else threads
    arms = [arm if arm == SEED else str(Subject.parse(arm)) for arm in arms]
    _require(arms, phases, batch_sizes, rounds, threads, slowdown, recipe)
    read = read_dataset(dataset, data_dir).first(limit)
    last, report = arms[-1], progress or (lambda *_: None)
    again, slowed = f"{last} again", f"{last} slowed by {slowdown:.0%}" if slowdown else None
    copies = {again: 0.0} | ({slowed: slowdown} if slowed else {})
    timed = {
        size: _Bench(
            dataclasses.replace(recipe, batch_size=size), read, arms, copies, phases, threads
        ).run(rounds, report)
        for size in batch_sizes
    }
    return Benchmark(
        command=command,
        recipe=recipe,
        threads=threads,
        rounds=rounds,
        phases=tuple(phases),
        environment=environment([], recipe) | _backends(timed),
        arms=tuple(arms),
        again=again,
        slowed=slowed,
        timed=timed,
    )


class _Bench:
    """The arms of one batch size."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        arms: Sequence[str],
        copies: dict[str, float],
        phases: Sequence[Phase],
        threads: int,
    ) -> None:
        self._recipe, self._dataset, self._phases, self._threads = recipe, dataset, phases, threads
        self._plan = {arm: (arm, 0.0) for arm in arms}
        self._plan |= {copy: (arms[-1], slowdown) for copy, slowdown in copies.items()}
        self._timed = {arm: Timed() for arm in self._plan}

    def run(self, rounds: int, report: Report) -> dict[str, Timed]:
        """Return what was measured of each arm."""
        report("losses by hand", 0, rounds)
        expected = self._by_hand()
        order = np.random.RandomState(self._recipe.seed)
        with cleaning_up():
            for number in range(rounds):
                counting = [arm for arm, timed in self._timed.items() if timed.void is None]
                for arm in order.permutation(counting).tolist():
                    report(arm, number, rounds)
                    try:
                        self._timed[arm].turns.append(self._turn(arm, expected))
                    except (ArmLostError, _WrongLossError) as error:
                        self._timed[arm].void = str(error)
                self._compare_losses()
        return self._timed

    def _turn(self, arm: str, expected: list[float]) -> Turn:
        """Start a process, check the losses of its warm-up, time each phase in it, and end it."""
        name, slowdown = self._plan[arm]
        recipe = self._recipe.to_json()
        with contextlib.closing(
            Arm(name, recipe, threads=self._threads, slowdown=slowdown)
        ) as process:
            hello = process.hello
            self._timed[arm].facts = hello["facts"]
            epochs = [process.ask(measure="epoch")] if "epoch" in self._phases else []
            self._check(hello["losses"], [epoch["loss"] for epoch in epochs], expected)
            before = process.ask(measure="state")
            seconds: dict[str, list[float]] = {phase: [] for phase in (PRODUCT, *self._phases)}
            for _ in range(_TIMES):
                for phase, found in seconds.items():
                    if phase != "epoch":
                        found.append(process.ask(measure=phase)["seconds"])
                    elif sum(found) < _EPOCHS:
                        epochs.append(process.ask(measure=phase))
                        found.append(epochs[-1]["seconds"])
            after = process.ask(measure="state")
        if not all(math.isfinite(epoch["loss"]) for epoch in epochs):
            raise _WrongLossError("the loss of an epoch is not finite")
        return Turn(
            first=hello["first"],
            seconds={phase: statistics.median(found) for phase, found in seconds.items()},
            losses=[epoch["loss"] for epoch in epochs],
            resident=[epoch["resident"] for epoch in epochs],
            retraces=after["programs"] - before["programs"],
            peak=after["peak"],
            device_peak=after["device_peak"],
        )

    def _check(self, steps: list[float], epochs: list[float], expected: list[float]) -> None:
        """Raise _WrongLossError unless the losses of a warm-up are those by hand."""
        for number, (got, loss) in enumerate(zip(steps + epochs, expected, strict=True), start=1):
            if not abs(got - loss) <= LOSS_LIMITS[self._recipe.dtype] * abs(loss):
                what = "first epoch" if number > len(steps) else f"step {number} on one batch"
                raise _WrongLossError(f"the loss of its {what} is {got:.9g}, should be {loss:.9g}")

    def _compare_losses(self) -> None:
        """Void an arm that lost something else in an epoch of this round than most.

        The epochs that all have come to are compared; copies do not count among them, and of two
        that differ both are void.
        """
        told = {
            arm: timed.turns[-1].losses for arm, timed in self._timed.items() if timed.void is None
        }
        for epoch, losses in enumerate(zip(*told.values(), strict=False), start=1):
            found = dict(zip(told, losses, strict=True))
            voices = [loss for arm, loss in found.items() if arm == self._plan[arm][0]]
            middle = statistics.median(voices or losses)
            wrong = [arm for arm in found if not abs(found[arm] - middle) <= LATER_LIMIT * middle]
            for arm in wrong:
                said = f"{found[arm]:.6g}, the arms' median {middle:.6g}"
                self._timed[arm].void = f"the loss of its epoch {epoch} is {said}"
            if wrong:
                return

    def _by_hand(self) -> list[float]:
        """Return the losses of the first steps on one batch, then of the first epoch if asked."""
        recipe, train = self._recipe, self._dataset.train
        start = initial_state(recipe.seed, recipe.dtype)
        order = list(
            batches(seed=recipe.seed, epoch=1, examples=len(train), batch_size=recipe.batch_size)
        )
        again, once = OracleSession(recipe, start), OracleSession(recipe, start)

        def step(session: OracleSession, batch: np.ndarray) -> float:
            return session.step(pixels(train.images[batch], recipe.dtype), train.labels[batch])

        losses = [step(again, order[0]) for _ in range(CHECKED_STEPS)]
        epoch = [sum(step(once, batch) for batch in order)] if "epoch" in self._phases else []
        return losses + epoch


def _backends(timed: dict[int, dict[str, Timed]]) -> dict[str, Any]:
    """Return what each backend said of its environment, by its name."""
    return {
        arm.facts["backend"]: arm.facts["environment"]
        for arms in timed.values()
        for arm in arms.values()
        if arm.facts
    }


def _usable() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _require(
    arms: Sequence[str],
    phases: Sequence[str],
    batch_sizes: Sequence[int],
    rounds: int,
    threads: int,
    slowdown: float,
    recipe: Recipe,
) -> None:
    """Raise RecipeError or DeviceError before anything starts."""
    for name, values in (("arms", arms), ("phases", phases), ("batch_sizes", batch_sizes)):
        if not values or len(set(values)) < len(values):
            raise RecipeError(f"{name} must be one or more, and all different, got {list(values)}")
    for phase in phases:
        if phase not in PHASES:
            raise RecipeError(f"phases must be of {', '.join(PHASES)}, got {phase!r}")
    require_integer("rounds", rounds, at_least=_LEAST_ROUNDS)
    require_integer("threads", threads, at_least=1)
    if threads > _usable():
        raise RecipeError(f"threads must be at most {_usable()}, the cores here, got {threads}")
    if not 0 <= slowdown <= 10:
        raise RecipeError(f"slowdown must be from 0 to 10, got {slowdown!r}")
    for size in batch_sizes:
        dataclasses.replace(recipe, batch_size=size)
    for arm in arms:
        if arm == SEED:
            if recipe.dtype != "float32":
                raise RecipeError(f"seed computes in float32, not {recipe.dtype}; leave it out")
        else:
            subject = Subject.parse(arm)
            if not subject.can("workload"):
                raise RecipeError(f"{arm} is not made to be timed; name other arms")
            subject.resolve(recipe)
