"""`parity selftest`."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from parity.commands.options import Output, Pair
from parity.contract.cli.command import Where
from parity.contract.recipe import Data, DatasetName


@dataclass(frozen=True, kw_only=True)
class Selftest(Output, Where, Data, Pair):
    """Plant a catalogue of porting mistakes into both subjects: each must be found at its stage.

    Correct code, from many states, must not be called wrong. Exit status: 0 both hold, 1 not,
    2 usage, data or environment error, 3 a subject is not deterministic.
    """

    a: str = "torch:eager"
    """A subject: torch:eager, torch:jit, jax:eager or jax:jit, with :fused or without."""
    dataset: DatasetName = "digits"
    """Data set of the correct cases. digits ships with scikit-learn and needs no network."""
    cases: int = 40
    """Correct cases of each subject."""
    only: Literal["mistakes", "correct"] | None = None
    """Only one of the two parts."""

    spoken: ClassVar[bool] = True

    def run(self) -> int:
        from parity.judge.selftest import selftest

        result = self.show(
            lambda bar: selftest(progress=bar, **self.arguments), lambda found: found.passed
        )
        return 0 if result.passed else 1
