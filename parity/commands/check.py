"""`parity check`."""

from dataclasses import dataclass

import parity
from parity.commands.options import Numbers, Pair, Report
from parity.contract.recipe import Data


@dataclass(frozen=True, kw_only=True)
class Check(Report, Numbers, Data, Pair):
    """Compare a training step of two subjects, stage by stage, against float64 by hand.

    Exit status: 0 they agree, 1 they do not, 2 usage, data or environment error,
    3 one of them is not deterministic.
    """

    batch_size: int = 64
    """Images in the step."""

    def run(self) -> int:
        verdict = self.show(
            lambda bar: parity.check(progress=bar, **self.arguments),
            lambda found: found.agrees,
            verdict_first=True,
        )
        return 0 if verdict.agrees else 1
