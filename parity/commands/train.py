"""`parity train`."""

from dataclasses import dataclass

import parity
from parity.commands.options import Numbers, Pair, Report
from parity.contract.recipe import Data, DType, Recipe


@dataclass(frozen=True, kw_only=True)
class Train(Report, Numbers, Data, Pair):
    """Compare two subjects over a whole training: in float64, and in float32 step by step.

    Exit status: 0 they are the same algorithm, 1 they are not, 2 usage, data or environment error.
    """

    epochs: int = 1
    """Passes over the training images."""
    steps: int | None = None
    """Number of steps, instead of whole epochs."""
    batch_size: int = 64
    """Images in a step; the last batch of an epoch may be smaller."""
    limit: int | None = None
    """Train on the first LIMIT training images only."""
    dtype: DType = "float32"
    """float32 judges the float64 training first; float64 judges nothing else."""

    def run(self) -> int:
        fields = self.arguments
        harness = {name: fields.pop(name) for name in ("a", "b", "steps")}
        recipe = Recipe(**fields)
        result = self.show(lambda bar: parity.train(recipe=recipe, progress=bar, **harness))
        return 0 if result.agrees else 1
