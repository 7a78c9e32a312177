"""`parity bench`."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import parity
from parity.commands.options import Numbers, Report
from parity.contract.errors import RecipeError
from parity.contract.recipe import Data


@dataclass(frozen=True, kw_only=True)
class Bench(Report, Numbers, Data):
    """Time subjects, and the tutorial's own loop, in turns; jit against eager.

    Each turn of an arm is a process of its own, with equal threads. The last arm runs twice, to
    show the noise; an arm does not count if its losses are not those of float64 by hand, or its
    process ends.

    Exit status: 0 done, 1 an arm does not count or the planted slowdown is not detected, 2 usage,
    data or environment error, 3 no verdict, since the machine was busy or too noisy.
    """

    arms: tuple[str, ...] = ()
    """What to time: tutorial, the tutorial's loop, and subjects. Default: everything. The others
    are compared with the first."""
    a: str | None = None
    """With --b, instead of --arms: an arm."""
    b: str | None = None
    """Another."""
    phases: tuple[Literal["forward", "step", "epoch"], ...] = ("forward", "step", "epoch")
    """What of them to time."""
    batch_sizes: tuple[int, ...] = (64,)
    """Images in a step."""
    rounds: int = 9
    """Turns of each arm, 6 or more; each turn warms its arm up first."""
    threads: int | None = None
    """Threads of each arm. Default: the cores there are."""
    slowdown: float = 0.0
    """Run the last arm a third time, idling this fraction of its time: it has to be detected."""
    limit: int | None = None
    """Train on the first LIMIT training images only."""
    spoken: ClassVar[bool] = True

    def run(self) -> int:
        plan = self.arguments
        arms, *pair = (plan.pop(name) for name in ("arms", "a", "b"))
        if pair != [None, None] and (arms or None in pair):
            raise RecipeError("give --arms, or both --a and --b")
        if named := arms or tuple(filter(None, pair)):
            plan["arms"] = named
        result = self.show(
            lambda bar: parity.bench(progress=bar, **plan), lambda found: found.exit_code == 0
        )
        return result.exit_code
