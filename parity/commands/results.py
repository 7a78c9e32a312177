"""The commands that compute and show a result: check, train, bench, doctor and selftest."""

import shlex
import sys
from dataclasses import dataclass
from typing import Literal

import parity
from parity.commands.options import Data, Numbers, Output, Pair, Report, Where
from parity.contract.errors import RecipeError
from parity.contract.recipe import DatasetName, DType, Recipe


@dataclass(frozen=True, kw_only=True)
class Check(Report, Numbers, Data, Pair):
    """Compare a training step of two subjects, stage by stage, against float64 by hand.

    Exit status: 0 they agree, 1 they do not, 2 usage, data or environment error,
    3 one of them is not deterministic.
    """

    batch_size: int = 64
    """Images in the step."""


def check(options: Check) -> int:
    """Check, show the verdict and return the exit status."""
    verdict = options.show(lambda _: parity.check(**options.arguments))
    return 0 if verdict.agrees else 1


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


def train(options: Train) -> int:
    """Train, show how the two trainings compare and return the exit status."""
    fields = options.arguments
    harness = {name: fields.pop(name) for name in ("a", "b", "steps")}
    recipe = Recipe(**fields)
    result = options.show(lambda bar: parity.train(recipe=recipe, progress=bar, **harness))
    return 0 if result.agrees else 1


@dataclass(frozen=True, kw_only=True)
class Bench(Report, Numbers, Data):
    """Time subjects, and the tutorial's own loop, in turns; jit against eager.

    Each turn of an arm is a process of its own, with equal threads. The last arm runs twice, to
    show the noise; an arm does not count if its losses are not those of float64 by hand, or its
    process ends.

    Exit status: 0 done, 1 an arm does not count or the planted slowdown is not detected, 2 usage,
    data or environment error.
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


def bench(options: Bench) -> int:
    """Time the arms, show the figures and return the exit status."""
    plan, command = options.arguments, shlex.join(["parity", *sys.argv[1:]])
    arms, *pair = (plan.pop(name) for name in ("arms", "a", "b"))
    if pair != [None, None] and (arms or None in pair):
        raise RecipeError("give --arms, or both --a and --b")
    if named := arms or tuple(filter(None, pair)):
        plan["arms"] = named
    result = options.show(lambda bar: parity.bench(command=command, progress=bar, **plan))
    return 0 if result.passed else 1


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


def doctor(options: Doctor) -> int:
    """Examine every subject, show the findings and return the exit status."""
    found = options.show(lambda bar: parity.diagnose(progress=bar, **options.arguments))
    return found.exit_code


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


def selftest(options: Selftest) -> int:
    """Plant and judge, show what was found and return the exit status."""
    from parity.judge.selftest import selftest as plant

    result = options.show(lambda bar: plant(progress=bar, **options.arguments))
    return 0 if result.passed else 1
