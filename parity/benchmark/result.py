"""Result of a benchmark: what was measured, how fast each arm is, and whether that counts."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from parity.benchmark.load import allowed
from parity.benchmark.stats import Ratio, Row, Speed, Start, ratio, spread
from parity.contract.cli.tables import aligned
from parity.contract.recipe import Recipe
from parity.subjects.environment import environment_lines

Phase = Literal["forward", "step", "epoch"]
PHASES: tuple[Phase, ...] = get_args(Phase)
PRODUCT_SIZE = 1024
"""Rows and columns of the matrices whose product shows what the machine can do."""
NOISE = 1.5
"""Factor between two turns of the same that no figure of a run survives."""
FORWARD_FLOPS = 2 * (9 * 16 * 26 * 26) + 2 * (2704 * 10)
"""Multiplications and additions of the convolution and the linear layer, for one image."""
STEP_FLOPS = 2 * 2 * (9 * 16 * 26 * 26) + 3 * 2 * (2704 * 10)
"""Those of a training step: the products again for the gradients of both weights, and of the linear
layer's input."""

MEASURED = ("first_step", "product", *PHASES, "loss", "retraces", "memory", "device_memory")
"""What a process measures: seconds of its first step, with compilation, of a product of two
matrices and, after the warm-up, of each phase; the first epoch's loss; programs compiled after the
warm-up; the most bytes in use after something was timed, and on the device. None for what is not
timed or counted."""
Measured = dict[str, Any]


@dataclass(kw_only=True)
class Timed:
    """What was measured of an arm."""

    rounds: list[Measured] = field(default_factory=list)
    """By round: what MEASURED names."""
    failed: str | None = None
    """Why its figures do not count; None where they do."""

    def __repr__(self) -> str:
        return f"<Timed {len(self.rounds)} rounds{f', {self.failed}' * (self.failed is not None)}>"

    def values(self, name: str) -> tuple[Any, ...]:
        """Return what a quantity was in each round in which it was measured."""
        return tuple(found[name] for found in self.rounds if found[name] is not None)

    def median(self, name: str) -> float:
        """Return the median of a quantity."""
        return spread(self.values(name)).median

    def compile_seconds(self) -> float:
        """Return the seconds that the first step takes above the later ones."""
        return max(0.0, self.median("first_step") - self.median("step"))


@dataclass(kw_only=True)
class Benchmark:
    """The timings of every arm, at one or more batch sizes, and what follows from them."""

    command: str
    """What was called."""
    recipe: Recipe
    images: int = 0
    """In an epoch."""
    threads: int
    rounds: int
    phases: tuple[Phase, ...]
    arms: tuple[str, ...]
    """As they were named; the first is what the others are compared with."""
    slowdown: float
    """The fraction of its time that `slowed` idles."""
    environment: dict[str, Any]
    """The machine, and what each backend computes with in its arms' processes."""
    timed: dict[int, dict[str, Timed]] = field(default_factory=dict)
    """By batch size, then by arm, the copies of the last one included."""
    others_before: list[float | None] = field(default_factory=list)
    """How many cores other processes kept busy before the first turn, by batch size."""
    others: list[float | None] = field(default_factory=list)
    """Likewise during each turn; None where that was too short to say."""

    @property
    def again(self) -> str:
        """The last arm once more, to show how far equals differ."""
        return f"{self.arms[-1]} again"

    @property
    def slowed(self) -> str | None:
        """The last arm once more, made slower on purpose; None where that was not asked for."""
        return f"{self.arms[-1]} slowed by {self.slowdown:.0%}" if self.slowdown else None

    def runs(self) -> dict[str, tuple[str, float]]:
        """Return what each arm runs, and the slowdown; the copies of the last one included."""
        runs = {arm: (arm, 0.0) for arm in self.arms} | {self.again: (self.arms[-1], 0.0)}
        return runs | ({self.slowed: (self.arms[-1], self.slowdown)} if self.slowed else {})

    @property
    def speeds(self) -> dict[int, dict[str, dict[str, Speed]]]:
        """By batch size, phase and arm, of the arms that count."""
        return {
            size: {
                phase: {arm: self._speed(size, arm, phase) for arm in self._counting(size)}
                for phase in self.phases
            }
            for size in self.timed
        }

    @property
    def starts(self) -> dict[int, dict[str, Start]]:
        """By batch size and arm, of the arms that count."""
        return {n: {arm: self._start(n, arm) for arm in self._counting(n)} for n in self.timed}

    @property
    def failed(self) -> list[str]:
        """Which arms do not count, and why."""
        return [
            f"{arm}, batches of {size}: {timed.failed}"
            for size, arms in self.timed.items()
            for arm, timed in arms.items()
            if timed.failed is not None
        ]

    @property
    def missed(self) -> list[str]:
        """Where the arm that was made slower was not found to be slower."""
        return [
            f"the planted slowdown is not detected: {where}, {found}"
            for where, found in self._copies(self.slowed)
            if not found.longer
        ]

    @property
    def busy(self) -> str | None:
        """Why other processes have spoiled the times; None where they have not."""
        before, during = (
            [x for x in seen if x is not None] for seen in (self.others_before, self.others)
        )
        cores = int(self.environment.get("cores usable") or self.environment.get("cores") or 1)
        taken = {"before": max(before, default=0.0), "during": spread(during or [0.0]).median}
        if max(taken.values()) <= allowed(cores, self.threads):
            return None
        seen = " and ".join(f"{value:.1f} {when} the turns" for when, value in taken.items())
        return f"other processes kept {seen} of {cores} cores busy"

    @property
    def noisy(self) -> list[str]:
        """Where the same arm differs from itself so much that nothing can be said."""
        return [
            f"{where}: {self.arms[-1]} differs from itself by {found}"
            for where, found in self._copies(self.again)
            if found.factor > NOISE
        ]

    @property
    def exit_code(self) -> int:
        """1: an arm does not count; 3: the machine gives no verdict; 1: a slowdown is missed."""
        if self.failed:
            return 1
        return 3 if self.busy or self.noisy else int(bool(self.missed))

    @property
    def passed(self) -> bool:
        """Whether every arm counts and every planted slowdown was detected."""
        return not self.failed and not self.missed

    def ratio(self, size: int, phase: Phase, arm: str, other: str) -> Ratio | None:
        """Return how many times as long `arm` takes as `other`; None if one does not count."""
        counting = self._counting(size)
        if arm not in counting or other not in counting:
            return None
        return ratio(counting[arm].values(phase), counting[other].values(phase))

    def product_flops(self, size: int) -> float:
        """Return the FLOP/s of matrix products, by the arm that is fastest at them."""
        counting = self._counting(size).values()
        return 2 * PRODUCT_SIZE**3 / min(timed.median("product") for timed in counting)

    def __str__(self) -> str:
        lines = [f"does not count: {line}" for line in self.failed]
        lines += self.no_verdict or [*self.headlines, *self.missed]
        for where, found in self._copies(self.again):
            said = "cannot be told apart" if found.undecided else "differ all the same"
            lines.append(f"noise, {where}: {self.arms[-1]} twice: {found}, {said}")
        for where, found in self._copies(self.slowed):
            if found.longer and not self.no_verdict:
                lines.append(f"planted slowdown, {where}: detected, {found}")
        return "\n".join(lines)

    @property
    def no_verdict(self) -> list[str]:
        """What spoiled the times, and what helps; nothing where nothing did."""
        if self.busy:
            stop = "stop them, or wait for their end, and time again"
            return [f"no verdict, the machine is busy: {self.busy}; {stop}"]
        more = "close what else runs, or give more --rounds"
        return [f"no verdict, too noisy: {line}; {more}" for line in self.noisy]

    @property
    def headlines(self) -> list[str]:
        """Which arm is the fastest of those that count, how sure that is, by size and phase."""
        lines = []
        for size, phase in itertools.product(self.timed, self.phases):
            counting = [arm for arm in self._counting(size) if arm in self.arms]
            if len(counting) < 2:
                continue
            best, second = sorted(counting, key=lambda a: self.timed[size][a].median(phase))[:2]
            ahead = self.ratio(size, phase, second, best)
            again, first = self.ratio(size, phase, self.again, self.arms[-1]), self.arms[0]
            if ahead is None or ahead.undecided or (again and ahead.low <= again.factor):
                said = f"{best} and {second} cannot be told apart, {ahead}"
            else:
                said = f"{best} is the fastest, {ahead} times as fast as {second}"
            if first in counting and first not in (best, second):
                said += f", {self.ratio(size, phase, first, best)} times as fast as {first}"
            lines.append(f"{phase}, batches of {size}: {said}")
        return lines

    def __repr__(self) -> str:
        return f"<Benchmark of {', '.join(self.arms)}, {self.rounds} rounds>"

    def rows(self, size: int, phase: Phase) -> list[Row]:
        """Return a table's head, then of each arm how long a phase takes and how fast that is."""
        speed = f"speed / {self.arms[0]}"
        head = (f"{phase}, {size}", "median", "quartiles", speed, "GFLOP/s", "of product", "")
        cells = {arm: found.cells() for arm, found in self.speeds[size][phase].items()}
        no_cells = ("does not count", *4 * ("-",), "")
        return [head, *((arm, *cells.get(arm, no_cells)) for arm in self.timed[size])]

    def costs(self, size: int) -> list[Row]:
        """Return a table's head, then of each arm its first step, what compiling costs, memory."""
        head = ("first step", "compiling", "pays after", "retraces", "memory", "data path")
        rows = [(arm, *found.cells()) for arm, found in self.starts[size].items()]
        return [(f"start, {size}", *head), *rows]

    def tables(self, size: int) -> list[list[Row]]:
        """Return the tables of a batch size: one for each phase, and the costs."""
        return [*(self.rows(size, phase) for phase in self.phases), self.costs(size)]

    def table(self) -> str:
        """Return command, environment, and a table for each phase and batch size."""
        title = (
            f"{self.recipe.dataset}, {self.recipe.dtype}, seed {self.recipe.seed}; {self.rounds}"
            f" rounds in random order, threads: {self.threads}; JAX eager is op by op"
        )
        lines = [self.command, *environment_lines(self.environment), "", title]
        for size in self.timed:
            if self._counting(size):
                rate = self.product_flops(size) / 1e9
                lines.append(f"batches of {size}; a matrix product: {rate:.1f} GFLOP/s")
            for rows in self.tables(size):
                lines += ["", *aligned(rows)]
            lines.append("")
        return "\n".join(lines)

    def _counting(self, size: int) -> dict[str, Timed]:
        return {arm: timed for arm, timed in self.timed[size].items() if timed.failed is None}

    def _copies(self, copy: str | None) -> Iterator[tuple[str, Ratio]]:
        """Yield where, and how many times as long, a copy takes as the last arm, if both count."""
        for size, phase in itertools.product(self.timed, self.phases):
            if copy and (found := self.ratio(size, phase, copy, self.arms[-1])):
                yield f"{phase}, batches of {size}", found

    def _speed(self, size: int, arm: str, phase: Phase) -> Speed:
        images = self.images if phase == "epoch" else min(size, self.images)
        seconds = spread(self.timed[size][arm].values(phase))
        flops = images * (FORWARD_FLOPS if phase == "forward" else STEP_FLOPS) / seconds.median
        return Speed(
            seconds=seconds,
            speed=self.ratio(size, phase, self.arms[0], arm),
            flops=flops,
            of_product=flops / self.product_flops(size),
        )

    def _start(self, size: int, arm: str) -> Start:
        timed = self.timed[size][arm]
        plain = self._counting(size).get(arm.replace(":jit", ":eager"))
        compile_seconds = pays_after = data_path = None
        if "step" in self.phases and ":jit" in arm:
            compile_seconds = timed.compile_seconds()
            if plain and (saved := plain.median("step") - timed.median("step")) > 0:
                pays_after = max(0.0, compile_seconds - plain.compile_seconds()) / saved
        if {"step", "epoch"} <= set(self.phases):
            steps = self.images / min(size, self.images)  # a smaller batch has its part of a step
            pairs = zip(timed.values("step"), timed.values("epoch"), strict=True)
            data_path = spread([1 - steps * step / epoch for step, epoch in pairs]).median
        return Start(
            first_step=timed.median("first_step"),
            compile_seconds=compile_seconds,
            pays_after=pays_after,
            retraces=sum(timed.values("retraces")),
            memory=max(timed.values("memory")),
            device_memory=max(timed.values("device_memory"), default=None),
            data_path=data_path,
        )
