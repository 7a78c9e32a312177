"""Right code judged from many states: no alarm must be raised, and how small a mistake may be."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from parity.contract.data.datasets import Dataset, pixels
from parity.contract.recipe import Recipe
from parity.contract.state import State, initial_state
from parity.judge.compare import Judged, first_wrong
from parity.judge.steps import examine, first_order
from parity.judge.trials import Progress
from parity.subjects.subject import Subject
from parity.truth.stages import expectations

BATCH_SIZES = (1, 7, 32, 64, 256)
"""Of the correct cases, in turn."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A correct case in which something was outside its bound."""

    subject: str
    seed: int
    batch_size: int
    trained: bool
    """Whether it started from weights after an epoch."""
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Smallest error planted in one element that is caught, as a fraction of the stage's scale."""

    half: float
    """Caught in at least half of the elements."""
    every: float
    """Caught in every element."""


@dataclass
class Correct:
    """Adds up what is found in right code."""

    cases: int = 0
    elements: int = 0
    alarms: list[Alarm] = dataclasses.field(default_factory=list)
    worst: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(self, subject: Subject, recipe: Recipe, trained: bool, judged: Judged) -> None:
        self.cases += 1
        for stage, comparison in judged.items():
            self.elements += comparison.elements
            self.worst[stage] = max(self.worst.get(stage, 0), comparison.ratio)
        wrong = first_wrong(judged)
        if wrong:
            self.alarms.append(
                Alarm(
                    subject=str(subject),
                    seed=recipe.seed,
                    batch_size=recipe.batch_size,
                    trained=trained,
                    evidence=str(wrong),
                )
            )


def cases_of(
    subjects: tuple[Subject, Subject], recipe: Recipe, data: Dataset, cases: int, report: Progress
) -> Iterator[tuple[Subject, Recipe, bool, Judged]]:
    """Judge right code from many states."""
    turns = (
        (seed, trained, size)
        for seed in itertools.count()
        for trained in (False, True)
        for size in BATCH_SIZES
    )
    trained_state: dict[int, State] = {}
    for done, (seed, trained, size) in enumerate(itertools.islice(turns, cases), start=1):
        this = dataclasses.replace(recipe, seed=seed, batch_size=size)
        state = initial_state(seed, this.dtype)
        if trained:
            if seed not in trained_state:
                epoch = dataclasses.replace(this, epochs=1, batch_size=64)
                trained_state = {seed: subjects[0].fit(epoch, data).state}
            state = trained_state[seed]
        for subject in subjects:
            yield subject, this, trained, examine(subject, this, data.train, state)
        report("correct cases", done, cases)


def floors(subject: Subject, recipe: Recipe, data: Dataset) -> dict[str, Floor]:
    """Plant errors of falling size in each element of each stage of a step."""
    state = initial_state(recipe.seed, recipe.dtype)
    batch = first_order(recipe, len(data.train))[0]
    images, labels = pixels(data.train.images[batch], recipe.dtype), data.train.labels[batch]
    with subject.session(recipe, state) as session:
        trace = session.trace(images, labels)
    found = {}
    for stage, (value, bound) in expectations(trace, state, images, labels, lr=recipe.lr):
        shares = []
        sizes = 2.0 ** -np.arange(60)
        for size in sizes:
            planted_in = trace[stage] + (size * np.abs(value).max()).astype(trace[stage].dtype)
            shares.append((np.abs(planted_in - value) > bound).mean())
        found[stage] = Floor(half=_smallest(sizes, shares, 0.5), every=_smallest(sizes, shares, 1))
    return found


def _smallest(sizes: np.ndarray, shares: list[float], least: float) -> float:
    """Return the smallest size down to which at least that share is caught."""
    enough = itertools.takewhile(lambda pair: pair[1] >= least, zip(sizes, shares, strict=True))
    return float(min((size for size, _ in enough), default=np.inf))
