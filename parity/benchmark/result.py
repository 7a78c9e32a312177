"""What a benchmark came to: timings of each arm, their ratios, and whether they can be believed."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from parity.benchmark.stats import Ratio, Spread, ratio, spread
from parity.benchmark.worker import PRODUCT
from parity.contract.files.jsonable import json_values
from parity.contract.recipe import Recipe
from parity.subjects.environment import environment_lines

Phase = Literal["forward", "step", "epoch"]
PHASES: tuple[Phase, ...] = ("forward", "step", "epoch")
FORWARD_FLOPS = 2 * (9 * 16 * 26 * 26) + 2 * (2704 * 10)
"""Multiplications and additions of the convolution and the linear layer, for one image."""
STEP_FLOPS = 2 * 2 * (9 * 16 * 26 * 26) + 3 * 2 * (2704 * 10)
"""Those of a training step: the products again for the gradients of both weights, and of the linear
layer's input."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What was measured of an arm in one round, by a process of its own."""

    first: dict[str, float]
    """Seconds of the first forward pass and of the first step."""
    seconds: dict[str, float]
    """By phase: of one forward pass, step, epoch or matrix product, after the warm-up."""
    losses: list[float]
    """Of each epoch, the warm-up's first."""
    resident: list[int | None]
    """Bytes of memory in use after each epoch; None where the system does not say so."""
    retraces: int
    """Programs compiled after the warm-up, when everything had been compiled already."""
    peak: int | None
    """The most bytes of memory that were in use; None where the system does not say so."""
    device_peak: int | None
    """The most bytes that were in use on the device; None where it does not count."""


@dataclass(kw_only=True)
class Timed:
    """What was measured of an arm."""

    facts: dict[str, Any] = field(default_factory=dict)
    """How it runs."""
    turns: list[Turn] = field(default_factory=list)
    """By round."""
    void: str | None = None
    """Why its figures do not count; None where they do."""

    def seconds(self, phase: str) -> list[float]:
        """Return a phase's seconds, by round."""
        return [turn.seconds[phase] for turn in self.turns]

    def spread(self, phase: str) -> Spread:
        """Return median and quartiles of a phase's seconds."""
        return spread(self.seconds(phase))

    def first(self, phase: Phase) -> float:
        """Return the median of what the first call took."""
        return spread([turn.first[phase] for turn in self.turns]).median

    def compile_seconds(self, phase: Phase) -> float:
        """Return what the first call took above the later ones."""
        return max(0.0, self.first(phase) - self.spread(phase).median)

    @property
    def retraces(self) -> int:
        """Programs compiled after the warm-up, of all rounds."""
        return sum(turn.retraces for turn in self.turns)

    @property
    def peaks(self) -> tuple[int | None, int | None]:
        """The most bytes of memory that were in use in any round, and the most on the device."""
        host = [turn.peak for turn in self.turns if turn.peak is not None]
        device = [turn.device_peak for turn in self.turns if turn.device_peak is not None]
        return max(host, default=None), max(device, default=None)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The timings of every arm, at one or more batch sizes."""

    command: str
    """What was called."""
    recipe: Recipe
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

    @property
    def void(self) -> list[str]:
        """Which arms do not count, and why."""
        return [
            f"{arm}, batches of {size}: {timed.void}"
            for size, arms in self.timed.items()
            for arm, timed in arms.items()
            if timed.void is not None
        ]

    @property
    def missed(self) -> list[str]:
        """Where the arm that was made slower was not found to be slower."""
        if self.slowed is None:
            return []
        ratios = (
            (size, phase, self.ratio(size, phase, self.slowed, self.arms[-1]))
            for size in self.timed
            for phase in self.phases
        )
        return [
            f"the planted slowdown is not detected: {phase}, batches of {size}, {_interval(found)}"
            for size, phase, found in ratios
            if found is not None and found.low <= 1
        ]

    @property
    def passed(self) -> bool:
        """Whether every arm counts and every planted slowdown was detected."""
        return not self.void and not self.missed

    def ratio(self, size: int, phase: Phase, arm: str, other: str) -> Ratio | None:
        """Return how many times as long `arm` takes as `other`; None where one is void."""
        pair = self.timed[size][arm], self.timed[size][other]
        if any(timed.void is not None for timed in pair):
            return None
        return ratio(pair[0].seconds(phase), pair[1].seconds(phase))

    def product_flops(self, size: int) -> float | None:
        """Return the FLOP/s of a product of two matrices, of the arm that is fastest at it."""
        rates = [
            2 * timed.facts["product size"] ** 3 / timed.spread(PRODUCT).median
            for timed in self.timed[size].values()
            if timed.void is None
        ]
        return max(rates, default=None)

    def flops(self, size: int, phase: Phase, arm: str) -> float | None:
        """Return the FLOP/s of a phase, by the network's own products; None for a void arm."""
        timed = self.timed[size][arm]
        if timed.void is not None:
            return None
        images = timed.facts["images"] if phase == "epoch" else min(size, timed.facts["images"])
        each = FORWARD_FLOPS if phase == "forward" else STEP_FLOPS
        return images * each / timed.spread(phase).median

    def break_even(self, size: int, arm: str) -> float | None:
        """Return after how many steps compiling has paid, against the same backend and kernel.

        That is what the first step takes longer, over what each later one saves. None where the arm
        is not compiled, or its eager twin is not there or not slower.
        """
        eager = arm.replace(":jit", ":eager")
        pair = [self.timed[size].get(name) for name in (arm, eager)]
        compiled, plain = pair
        if arm == eager or compiled is None or plain is None or "step" not in self.phases:
            return None
        if compiled.void is not None or plain.void is not None:
            return None
        saved = plain.spread("step").median - compiled.spread("step").median
        more = compiled.compile_seconds("step") - plain.compile_seconds("step")
        return max(0.0, more) / saved if saved > 0 else None

    def data_path(self, size: int, arm: str) -> float | None:
        """Return the part of an epoch that is not its steps on a batch that stays on the device.

        That is what gathering the batches, handing over their order and looking up cost. None where
        it cannot be told.
        """
        timed = self.timed[size][arm]
        if timed.void is not None or not {"step", "epoch"} <= set(self.phases):
            return None
        images = timed.facts["images"]
        whole, rest = divmod(images, min(size, images))
        steps = whole + rest / size  # the smaller last batch has its part of a step
        pairs = zip(timed.seconds("step"), timed.seconds("epoch"), strict=True)
        return spread([1 - steps * step / epoch for step, epoch in pairs]).median

    def __str__(self) -> str:
        lines = [f"void: {line}" for line in self.void] + self.missed
        last = self.arms[-1]
        for size in self.timed:
            for phase in self.phases:
                where = f"{phase}, batches of {size}"
                noise = self.ratio(size, phase, self.again, last)
                if noise is not None:
                    said = "cannot be told apart" if noise.undecided else "differ all the same"
                    lines.append(f"noise, {where}: {last} twice: {_interval(noise)}, {said}")
                slowed = self.slowed and self.ratio(size, phase, self.slowed, last)
                if slowed and slowed.low > 1:
                    lines.append(f"planted slowdown, {where}: detected, {_interval(slowed)}")
        return "\n".join(lines)

    def table(self) -> str:
        """Return the environment, and a table for each phase and batch size."""
        recipe = self.recipe
        title = (
            f"{recipe.dataset}, {recipe.dtype}, seed {recipe.seed}; {self.rounds} rounds in random"
            f" order, {self.threads} thread{'s' * (self.threads > 1)}; JAX eager is op by op"
        )
        lines = [self.command, *environment_lines(self.environment), "", title]
        for size in self.timed:
            rate = self.product_flops(size)
            if rate is not None:
                lines.append(f"batches of {size}; a matrix product: {rate / 1e9:.1f} GFLOP/s")
            for phase in self.phases:
                lines += ["", *_aligned(self.rows(size, phase))]
            lines += ["", *_aligned(self.costs(size)), ""]
        return "\n".join(lines)

    def rows(self, size: int, phase: Phase) -> list[tuple[str, ...]]:
        """Return a table's head, then of each arm how long a phase takes and how fast that is."""
        speed = f"speed / {self.arms[0]}"
        rows = [(f"{phase}, {size}", "median", "quartiles", speed, "GFLOP/s", "of product", "")]
        rate = self.product_flops(size)
        for arm, timed in self.timed[size].items():
            if timed.void is not None:
                rows.append((arm, "void", "-", "-", "-", "-", ""))
                continue
            found, faster = timed.spread(phase), self.ratio(size, phase, self.arms[0], arm)
            flops = self.flops(size, phase, arm) or 0.0
            rows.append(
                (
                    arm,
                    _seconds(found.median),
                    f"{_seconds(found.lower)} to {_seconds(found.upper)}",
                    _interval(faster) if faster else "-",
                    f"{flops / 1e9:.1f}",
                    f"{flops / rate:.1%}" if rate else "-",
                    "unstable" * found.unstable,
                )
            )
        return rows

    def costs(self, size: int) -> list[tuple[str, ...]]:
        """Return a table's head, then of each arm its first step, what compiling costs, memory."""
        head = ("first step", "compiling", "pays after", "retraces", "memory", "data path")
        rows: list[tuple[str, ...]] = [(f"start, {size}", *head)]
        for arm, timed in self.timed[size].items():
            if timed.void is not None:
                continue
            pays, path = self.break_even(size, arm), self.data_path(size, arm)
            compiled = "step" in self.phases and ":jit" in arm
            rows.append(
                (
                    arm,
                    _seconds(timed.first("step")),
                    _seconds(timed.compile_seconds("step")) if compiled else "-",
                    f"{pays:,.0f} steps" if pays is not None else "-",
                    str(timed.retraces),
                    _memory(*timed.peaks),
                    f"{path:.1%}" if path is not None else "-",
                )
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; what is no number is null."""
        return json_values(self._values())

    def _values(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "passed": self.passed,
            "verdict": str(self),
            "command": self.command,
            "recipe": self.recipe.to_json(),
            "threads": self.threads,
            "rounds": self.rounds,
            "phases": list(self.phases),
            "environment": self.environment,
            "arms": list(self.arms),
            "again": self.again,
            "slowed": self.slowed,
            "tables": {
                str(size): {
                    **{phase: self.rows(size, phase) for phase in self.phases},
                    "start": self.costs(size),
                }
                for size in self.timed
            },
            "batch sizes": {str(size): self._size(size) for size in self.timed},
        }

    def _size(self, size: int) -> dict[str, Any]:
        arms = {}
        for arm, timed in self.timed[size].items():
            arms[arm] = dataclasses.asdict(timed)
            if timed.void is None:
                arms[arm] |= {
                    "compile seconds": self._compiling(timed),
                    "retraces": timed.retraces,
                    "break-even steps": self.break_even(size, arm),
                    "data path": self.data_path(size, arm),
                    "phases": {phase: self._summary(size, phase, arm) for phase in self.phases},
                }
        return {"product FLOP/s": self.product_flops(size), "arms": arms}

    def _compiling(self, timed: Timed) -> float | None:
        return timed.compile_seconds("step") if "step" in self.phases else None

    def _round_ratios(self, size: int, phase: Phase, arm: str) -> list[float] | None:
        first, other = (self.timed[size][name] for name in (self.arms[0], arm))
        if first.void is not None:
            return None
        pairs = zip(first.seconds(phase), other.seconds(phase), strict=True)
        return [a / b for a, b in pairs]

    def _summary(self, size: int, phase: Phase, arm: str) -> dict[str, Any]:
        found = self.timed[size][arm].spread(phase)
        speed = self.ratio(size, phase, self.arms[0], arm)
        return {
            **dataclasses.asdict(found),
            "unstable": found.unstable,
            "rounds": {
                "seconds": self.timed[size][arm].seconds(phase),
                f"speed over {self.arms[0]}": self._round_ratios(size, phase, arm),
            },
            "FLOP/s": self.flops(size, phase, arm),
            f"speed over {self.arms[0]}": speed and dataclasses.asdict(speed),
        }


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Yield rows as lines, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        yield "  ".join([f"{first:<{widths[0]}}", *cells]).rstrip()


def _seconds(value: float) -> str:
    """Return seconds in the unit that suits them."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def _memory(host: int | None, device: int | None) -> str:
    """Return the most memory that was in use, of the process and on its device."""
    told = [f"{host / 2**20:,.0f} MiB"] if host is not None else []
    told += [f"{device / 2**20:,.0f} MiB on the device"] if device is not None else []
    return ", ".join(told) or "-"


def _interval(found: Ratio) -> str:
    return f"{found.median:.3g} [{found.low:.3g}, {found.high:.3g}]"
