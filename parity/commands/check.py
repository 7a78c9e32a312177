"""`parity check`: one training step of two subjects, stage by stage."""

from dataclasses import dataclass

import parity
from parity.commands.options import Data, Numbers, Pair, Report


@dataclass(frozen=True, kw_only=True)
class Check(Report, Numbers, Data, Pair):
    """Compare a training step of two subjects, stage by stage, against float64 by hand.

    Exit status: 0 they agree, 1 they do not, 2 usage, data or environment error,
    3 one of them is not deterministic.
    """

    batch_size: int = 64
    """Images in the step."""


def run(options: Check) -> int:
    """Check, show the verdict and return the exit status."""
    verdict = options.show(lambda _: parity.check(**options.arguments))
    return 0 if verdict.agrees else 1
