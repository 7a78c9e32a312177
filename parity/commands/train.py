"""`parity train`."""

from dataclasses import dataclass

import parity
from parity.commands.options import Numbers, Pair, Report
from parity.contract.errors import RecipeError
from parity.contract.recipe import Data, DType, Recipe


@dataclass(frozen=True, kw_only=True)
class Train(Report, Numbers, Data, Pair):
    """Compare two subjects over a whole training: in float64, and in float32 step by step.

    Exit status: 0 they are the same algorithm, 1 they are not, 2 usage, data or environment error.
    """

    epochs: int | None = None
    """Passes over the training images. Default: 1."""
    steps: int | None = None
    """Number of steps, instead of --epochs."""
    batch_size: int = 64
    """Images in a step; the last batch of an epoch may be smaller."""
    limit: int | None = None
    """Train on the first LIMIT training images only."""
    dtype: DType = "float32"
    """float32 judges the float64 training first; float64 judges nothing else."""

    def run(self) -> int:
        fields = self.arguments
        if None not in (self.epochs, self.steps):
            raise RecipeError("--steps and --epochs both say how long; give one of them")
        fields["epochs"] = 1 if self.epochs is None else self.epochs
        harness = {name: fields.pop(name) for name in ("a", "b", "steps")}
        recipe = Recipe(**fields)
        result = self.show(
            lambda bar: parity.train(recipe=recipe, progress=bar, **harness),
            lambda found: found.agrees,
        )
        return 0 if result.agrees else 1
