"""Result of a benchmark: what was measured, how fast each arm is, and whether that counts."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from parity.benchmark import tables
from parity.benchmark.stats import Ratio, Spread, ratio, spread
from parity.contract.recipe import Recipe

Phase = Literal["forward", "step", "epoch"]
PHASES: tuple[Phase, ...] = get_args(Phase)
PRODUCT_SIZE = 1024
"""Rows and columns of the matrices whose product shows what the machine can do."""
FORWARD_FLOPS = 2 * (9 * 16 * 26 * 26) + 2 * (2704 * 10)
"""Multiplications and additions of the convolution and the linear layer, for one image."""
STEP_FLOPS = 2 * 2 * (9 * 16 * 26 * 26) + 3 * 2 * (2704 * 10)
"""Those of a training step: the products again for the gradients of both weights, and of the linear
layer's input."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured of an arm in one round, by a process of its own; times in seconds."""

    first_step: float
    """The process's first training step, with compilation."""
    first_forward: float
    product: float
    """A product of two matrices of PRODUCT_SIZE."""
    forward: float | None
    """A forward pass after the warm-up. None for a phase that was not timed."""
    step: float | None
    epoch: float | None
    loss: float | None
    """The first epoch's."""
    retraces: int
    """Programs compiled after the warm-up, when everything had been compiled already."""
    memory: int
    """The most bytes of memory that were in use after a phase."""
    device_memory: int | None
    """The most bytes that were in use on the device; None where it does not count."""

    def seconds(self, phase: Phase) -> float:
        """Return what a phase took; 0 if it was not timed."""
        return getattr(self, phase) or 0.0


@dataclass(kw_only=True)
class Timed:
    """What was measured of an arm."""

    measurements: list[Measurement] = field(default_factory=list)
    """By round."""
    failed: str | None = None
    """Why its figures do not count; None where they do."""

    def seconds(self, phase: Phase) -> list[float]:
        """Return a phase's seconds, by round."""
        return [found.seconds(phase) for found in self.measurements]

    def spread(self, phase: Phase) -> Spread:
        """Return median and quartiles of a phase's seconds."""
        return spread(self.seconds(phase))

    def first_step(self) -> float:
        """Return the median of what the first step took, in seconds."""
        return spread([found.first_step for found in self.measurements]).median

    def compile_seconds(self) -> float:
        """Return what the first step took above the later ones."""
        return max(0.0, self.first_step() - self.spread("step").median)

    def product_flops(self) -> float:
        """Return the FLOP/s of its matrix products."""
        return 2 * PRODUCT_SIZE**3 / spread([found.product for found in self.measurements]).median


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast an arm is in a phase."""

    batch_size: int
    phase: Phase
    arm: str
    seconds: Spread
    speed: Ratio | None
    """How many times as fast as the first arm it is; None where that one does not count."""
    flops: float
    """FLOP/s of the network's own products."""
    of_product: float
    """That as a fraction of a matrix product's FLOP/s, by the arm that is fastest at it."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What an arm needs besides its time."""

    batch_size: int
    arm: str
    first_step: float
    """Seconds."""
    compile_seconds: float | None
    """What of these is compiling; None for an arm that is not compiled."""
    pays_after: float | None
    """Steps after which compiling has paid, against the same backend and kernel op by op: what the
    first step takes longer, over what each later one saves. None where that is not known, or it
    never pays."""
    retraces: int
    """Programs compiled after the warm-up, in all rounds."""
    memory: int
    device_memory: int | None
    data_path: float | None
    """Part of an epoch that its steps on one batch at hand do not take."""


@dataclass(kw_only=True)
class Benchmark:
    """The timings of every arm, at one or more batch sizes, and what follows from them."""

    command: str
    """What was called."""
    recipe: Recipe
    images: int
    """In an epoch."""
    threads: int
    rounds: int
    phases: tuple[Phase, ...]
    environment: dict[str, Any]
    """The machine, and what each backend computes with in its arms' processes."""
    arms: tuple[str, ...]
    """As they were named; the first is what the others are compared with."""
    again: str
    """The last arm once more, to show how far equals differ."""
    slowed: str | None
    """The last arm once more, made slower on purpose; None where that was not asked for."""
    timed: dict[int, dict[str, Timed]]
    """By batch size, then by arm, the copies of the last one included."""
    speeds: list[Speed] = field(init=False)
    """Of each batch size, phase and arm that counts."""
    starts: list[Start] = field(init=False)
    """Of each batch size and arm that counts."""

    def __post_init__(self) -> None:
        counting = [
            (size, arm)
            for size, arms in self.timed.items()
            for arm, timed in arms.items()
            if timed.failed is None
        ]
        self.speeds = [self._speed(*each, phase) for phase in self.phases for each in counting]
        self.starts = [self._start(*each) for each in counting]

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
            f"the planted slowdown is not detected: {where}, {tables.interval(found)}"
            for where, found in self._copies(self.slowed)
            if found.low <= 1
        ]

    @property
    def passed(self) -> bool:
        """Whether every arm counts and every planted slowdown was detected."""
        return not self.failed and not self.missed

    def ratio(self, size: int, phase: Phase, arm: str, other: str) -> Ratio | None:
        """Return how many times as long `arm` takes as `other`; None if one does not count."""
        pair = self.timed[size][arm], self.timed[size][other]
        if any(timed.failed is not None for timed in pair):
            return None
        return ratio(pair[0].seconds(phase), pair[1].seconds(phase))

    def __str__(self) -> str:
        lines = [f"does not count: {line}" for line in self.failed] + self.missed
        for where, found in self._copies(self.again):
            said = "cannot be told apart" if found.undecided else "differ all the same"
            lines.append(f"noise, {where}: {self.arms[-1]} twice: {tables.interval(found)}, {said}")
        for where, found in self._copies(self.slowed):
            if found.low > 1:
                lines.append(f"planted slowdown, {where}: detected, {tables.interval(found)}")
        return "\n".join(lines)

    def table(self) -> str:
        """Return the environment, and a table for each phase and batch size."""
        return tables.screen(self)

    def rows(self, size: int, phase: Phase) -> tables.Rows:
        """Return a table's head, then of each arm how long a phase takes and how fast that is."""
        return tables.speeds(self, size, phase)

    def costs(self, size: int) -> tables.Rows:
        """Return a table's head, then of each arm its first step, what compiling costs, memory."""
        return tables.starts(self, size)

    def _copies(self, copy: str | None) -> list[tuple[str, Ratio]]:
        """Return how long a copy of the last arm takes, over that one: where, and how many times.

        Where one of the two does not count, that is left out.
        """
        found = [
            (f"{phase}, batches of {size}", self.ratio(size, phase, copy, self.arms[-1]))
            for size in self.timed
            for phase in self.phases
            if copy is not None
        ]
        return [(where, ratio) for where, ratio in found if ratio is not None]

    def _speed(self, size: int, arm: str, phase: Phase) -> Speed:
        images = self.images if phase == "epoch" else min(size, self.images)
        seconds = self.timed[size][arm].spread(phase)
        each = FORWARD_FLOPS if phase == "forward" else STEP_FLOPS
        flops = images * each / seconds.median
        counting = [timed for timed in self.timed[size].values() if timed.failed is None]
        return Speed(
            batch_size=size,
            phase=phase,
            arm=arm,
            seconds=seconds,
            speed=self.ratio(size, phase, self.arms[0], arm),
            flops=flops,
            of_product=flops / max(timed.product_flops() for timed in counting),
        )

    def _start(self, size: int, arm: str) -> Start:
        timed, steps = self.timed[size][arm], "step" in self.phases
        return Start(
            batch_size=size,
            arm=arm,
            first_step=timed.first_step(),
            compile_seconds=timed.compile_seconds() if steps and ":jit" in arm else None,
            pays_after=self._pays_after(size, arm) if steps and ":jit" in arm else None,
            retraces=sum(found.retraces for found in timed.measurements),
            memory=max(found.memory for found in timed.measurements),
            device_memory=max(
                (found.device_memory for found in timed.measurements if found.device_memory),
                default=None,
            ),
            data_path=self._data_path(size, timed) if steps and "epoch" in self.phases else None,
        )

    def _pays_after(self, size: int, arm: str) -> float | None:
        compiled = self.timed[size][arm]
        plain = self.timed[size].get(arm.replace(":jit", ":eager"))
        if plain is None or plain.failed is not None:
            return None
        saved = plain.spread("step").median - compiled.spread("step").median
        more = compiled.compile_seconds() - plain.compile_seconds()
        return max(0.0, more) / saved if saved > 0 else None

    def _data_path(self, size: int, timed: Timed) -> float:
        whole, rest = divmod(self.images, min(size, self.images))
        steps = whole + rest / size  # the smaller last batch has its part of a step
        pairs = zip(timed.seconds("step"), timed.seconds("epoch"), strict=True)
        return spread([1 - steps * step / epoch for step, epoch in pairs]).median
