"""`parity doctor`."""

from dataclasses import dataclass
from typing import ClassVar

import parity
from parity.commands.options import Numbers, Output


@dataclass(frozen=True, kw_only=True)
class Doctor(Output, Numbers):
    """Say what this machine computes: versions, devices, flags, and whether a step is right.

    Each subject makes the same step of a training on the bundled digits: stage by stage against
    float64 by hand, and again and again against itself.

    Exit status: 0 every available subject is right and deterministic, 1 one computes something
    else, 2 usage, data or environment error, 3 one is not deterministic.
    """

    runs: int = 100
    """How often each subject makes the step, to see whether it repeats itself bit for bit."""

    spoken: ClassVar[bool] = True

    def run(self) -> int:
        found = self.show(
            lambda bar: parity.diagnose(progress=bar, **self.arguments), lambda found: found.healthy
        )
        return found.exit_code
