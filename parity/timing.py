"""Which subject is how fast: in turns, in processes of their own, with their losses checked."""

import contextlib
import dataclasses
import math
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parity.arms import Arm, ArmLostError
from parity.benchmark import PHASES, Benchmark, Phase, Timed
from parity.contract.datasets import Dataset, pixels, read_dataset
from parity.contract.errors import RecipeError
from parity.contract.interrupts import cleaning_up
from parity.contract.parameters import initial_state
from parity.contract.randomness import batches
from parity.contract.recipe import DatasetName, Device, DType, Recipe, require_integer
from parity.environment import environment
from parity.subjects import OracleSession, Subject
from parity.worker import CHECKED_STEPS, PRODUCT, SEED

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

_TURN, _EPOCHS = 2.0, 3
"""Seconds of epochs in a turn, and the most of them: it is their median that counts."""

Report = Callable[[str, int, int], None]
"""Called with what is done, the round and the number of rounds."""


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

    Each arm is a process of its own, with the same images, initial weights and batch order, and as
    many threads as the others. In every round each arm has its turn, in random order; ratios are
    taken round by round. The last arm runs twice, which shows the noise. An arm is void whose
    process ends, or whose losses are not those of float64 by hand.

    Args:
        arms: subjects, or `seed`; the first is what the others are compared with.
        phases: what to time.
        batch_sizes: images in a step.
        rounds: how often; the warm-up does not count.
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
        self._arms: dict[str, Arm] = {}
        self._warm_up: dict[str, float] = {}

    def run(self, rounds: int, report: Report) -> dict[str, Timed]:
        """Return what was measured of each arm."""
        with cleaning_up(), contextlib.closing(self):
            report("losses by hand", 0, rounds)
            expected = self._by_hand()
            for arm in self._plan:
                report(f"{arm} starts", 0, rounds)
                self._ask(arm, lambda arm=arm: self._start(arm, expected))
            turns = np.random.RandomState(self._recipe.seed)
            for number in range(rounds):
                for phase in (PRODUCT, *self._phases):
                    for arm in turns.permutation(list(self._arms)).tolist():
                        report(f"{phase}: {arm}", number, rounds)
                        self._ask(arm, lambda arm=arm, phase=phase: self._measure(arm, phase))
                self._compare_losses()
            for arm in list(self._arms):
                self._ask(arm, lambda arm=arm: self._end(arm))
        return self._timed

    def close(self) -> None:
        """End all processes."""
        for arm in self._arms.values():
            arm.kill()
        self._arms.clear()

    def _ask(self, arm: str, what: Callable[[], None]) -> None:
        """Do something that needs the arm's process; without one, the arm is void."""
        try:
            what()
        except ArmLostError as lost:
            self._void(arm, str(lost))

    def _void(self, arm: str, why: str) -> None:
        self._timed[arm].void = why
        if process := self._arms.pop(arm, None):
            process.kill()

    def _start(self, arm: str, expected: list[float]) -> None:
        """Start an arm's process, warm it up, and check the losses of that."""
        name, slowdown = self._plan[arm]
        timed = self._timed[arm]
        self._arms[arm] = process = Arm(
            name, self._recipe.to_json(), threads=self._threads, slowdown=slowdown
        )
        timed.hello = process.hello
        losses = list(timed.hello["losses"])
        if "epoch" in self._phases:
            self._warm_up[arm] = self._epoch(arm)
            losses += timed.losses
        timed.before = process.ask(measure="state")
        for number, (got, loss) in enumerate(zip(losses, expected, strict=True), start=1):
            if not abs(got - loss) <= LOSS_LIMITS[self._recipe.dtype] * abs(loss):
                epoch = number > len(timed.hello["losses"])
                what = "first epoch" if epoch else f"step {number} on one batch"
                self._void(arm, f"the loss of its {what} is {got:.9g}, should be {loss:.9g}")
                return

    def _measure(self, arm: str, phase: str) -> None:
        if phase == "epoch":
            epochs = max(1, min(_EPOCHS, int(_TURN / self._warm_up[arm])))
            seconds = statistics.median(self._epoch(arm) for _ in range(epochs))
        else:
            seconds = self._arms[arm].ask(measure=phase)["seconds"]
        self._timed[arm].seconds.setdefault(phase, []).append(seconds)

    def _epoch(self, arm: str) -> float:
        told = self._arms[arm].ask(measure="epoch")
        self._timed[arm].losses.append(told["loss"])
        self._timed[arm].resident.append(told["resident"])
        return told["seconds"]

    def _end(self, arm: str) -> None:
        self._timed[arm].after = self._arms[arm].ask(measure="state")

    def _compare_losses(self) -> None:
        """Void an arm that lost something else in an epoch than most, or no number.

        The epochs that all have come to are compared; copies do not count among them, and of two
        that differ both are void.
        """
        for arm in list(self._arms):
            if not all(map(math.isfinite, self._timed[arm].losses)):
                self._void(arm, "the loss of an epoch is not finite")
        for epoch in range(min((len(self._timed[arm].losses) for arm in self._arms), default=0)):
            losses = {arm: self._timed[arm].losses[epoch] for arm in self._arms}
            voices = [loss for arm, loss in losses.items() if arm == self._plan[arm][0]]
            middle = statistics.median(voices or losses.values()) if losses else 0.0
            for arm, loss in losses.items():
                if not abs(loss - middle) <= LATER_LIMIT * middle:
                    said = f"{loss:.6g}, the arms' median {middle:.6g}"
                    self._void(arm, f"the loss of its epoch {epoch + 1} is {said}")

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
        arm.hello["backend"]: arm.hello["environment"]
        for arms in timed.values()
        for arm in arms.values()
        if arm.hello
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
            if subject.backend is None:
                raise RecipeError(f"{arm} is not made to be timed; name other arms")
            subject.resolve(recipe)
