"""Is the harness to be trusted? It must find every planted mistake, and none in right code."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from parity.contract.batches import batches
from parity.contract.cli.tables import aligned
from parity.contract.data.datasets import Dataset, pixels, read_dataset
from parity.contract.errors import NondeterminismError, RecipeError
from parity.contract.recipe import DatasetName, Device, Recipe
from parity.contract.state import State, initial_state
from parity.judge.check import judge
from parity.judge.compare import Comparison
from parity.judge.steps import examine
from parity.subjects.faults import Fault, catalogue, planted
from parity.subjects.subject import Subject
from parity.truth.propagation import STEP_STAGES
from parity.truth.reference import STAGES
from parity.truth.stages import expectations

BATCH_SIZES = (1, 7, 32, 64, 256)
"""Of the correct cases, in turn."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the case and the number of cases."""

Outcome = Literal["located", "caught", "missed"]
Part = Literal["mistakes", "correct"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of one mistake in one subject."""

    fault: str
    subject: str
    expected: str
    """The stage that it belongs to."""
    found: str | None
    """The first stage that differed; None for none."""
    evidence: str

    @property
    def outcome(self) -> Outcome:
        """Whether it was found, and at its stage."""
        if self.found is None:
            return "missed"
        return "located" if self.found.startswith(self.expected) else "caught"


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


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """What the harness finds in wrong code and in right code, and how small a mistake may be."""

    a: str
    b: str
    dataset: str
    trials: list[Trial]
    one_sided: dict[str, str]
    """By mistake that only one backend can make, why."""
    cases: int
    """Correct cases, of both subjects together."""
    alarms: list[Alarm]
    worst: dict[str, float]
    """By stage, the largest error over its bound in the correct cases."""
    judged: int
    """Elements judged in the correct cases."""
    floors: dict[str, Floor]

    @property
    def passed(self) -> bool:
        """Whether every mistake was located and no right code was called wrong."""
        located = all(trial.outcome == "located" for trial in self.trials)
        return located and not self.alarms and bool(self.trials or self.cases)

    def count(self, outcome: Outcome) -> int:
        """Return how many trials ended so."""
        return sum(trial.outcome == outcome for trial in self.trials)

    def __str__(self) -> str:
        findings = []
        if self.trials:
            findings.append(
                f"of {len(self.trials)} planted mistakes {self.count('located')} located,"
                f" {self.count('caught')} caught elsewhere, {self.count('missed')} missed"
            )
        if self.cases:
            findings.append(
                f"of {self.cases} correct cases {len(self.alarms)} called wrong"
                f" ({self.judged:,} elements judged)"
            )
        return f"{'passed' if self.passed else 'failed'}: {'; '.join(findings) or 'nothing tried'}"

    def table(self) -> str:
        """Return a line a mistake, then a line a stage, then every false alarm."""
        lines = self._mistakes() if self.trials else []
        lines += [f"  {fault}: only one, {why}" for fault, why in self.one_sided.items()]
        head = ("stage", "worst error / bound", "caught in half", "caught in all")
        rows: list[tuple[str, ...]] = [head]
        for stage in ("init", *STAGES, *STEP_STAGES):
            ratio = f"{self.worst[stage]:.3f}" if stage in self.worst else "-"
            floor = self.floors.get(stage)
            caught = (f"{floor.half:.1e}", f"{floor.every:.1e}") if floor else ("-", "-")
            rows.append((stage, ratio, *caught))
        title = (
            "correct cases; and the smallest error caught in half or all elements, over the scale"
        )
        lines += ["", title, *aligned(rows)]
        for alarm in self.alarms:
            weights = "after an epoch" if alarm.trained else "at init"
            lines.append(
                f"false alarm: {alarm.subject}, seed {alarm.seed}, batch of {alarm.batch_size},"
                f" weights {weights}: {alarm.evidence}"
            )
        return "\n".join([*lines, ""])

    def _mistakes(self) -> list[str]:
        rows: list[tuple[str, ...]] = [("mistake", "stage", self.a, self.b)]
        for fault, trials in itertools.groupby(self.trials, key=lambda trial: trial.fault):
            ended = {trial.subject: trial for trial in trials}
            stage = next(iter(ended.values())).expected
            rows.append((fault, stage, *(_cell(ended.get(name)) for name in (self.a, self.b))))
        return aligned(rows, left=2)


def selftest(
    *,
    a: str = "torch:eager",
    b: str = "jax:jit",
    dataset: DatasetName = "digits",
    data_dir: Path | None = None,
    cases: int = 40,
    only: Part | None = None,
    device: Device = "auto",
    progress: Progress | None = None,
) -> SelfTest:
    """Plant every mistake of the catalogue into each subject, and judge right code as well.

    Args:
        a: a subject.
        b: another.
        dataset: data set of the correct cases; mistakes are planted on the bundled digits.
        data_dir: folder of its files.
        cases: correct cases of each subject; batch sizes, weights at init and after an epoch, and
            seeds take turns.
        only: one of the two parts.
        device: where to compute.
        progress: told of every mistake and of every case.

    Raises:
        RecipeError: a subject is not a backend's, or has no layers to plant mistakes into; or
            `cases` is not a positive integer.
        CnnParityError: the data or the device is not there.
    """
    if not isinstance(cases, int) or isinstance(cases, bool) or cases < 1:
        raise RecipeError(f"cases must be an integer of at least 1, got {cases!r}")
    subjects = Subject.parse(a), Subject.parse(b)
    for subject in subjects:
        if subject.backend is None:
            raise RecipeError(f"mistakes are planted into a backend, not into {subject}")
        if subject.kernel != "layers" and only != "correct":
            raise RecipeError(f"mistakes are planted into layers; {subject} needs --only correct")
    recipe = Recipe(dataset=dataset, data_dir=data_dir, device=device)
    for subject in subjects:
        subject.resolve(recipe)
    data = subjects[0].load_dataset(recipe)
    report = progress or (lambda *_: None)
    faults = [] if only == "correct" else catalogue()
    judged = _Correct()
    for case in _cases(subjects, recipe, data, 0 if only == "mistakes" else cases, report):
        judged.add(*case)
    return SelfTest(
        a=a,
        b=b,
        dataset=dataset,
        trials=list(_trials(faults, subjects, device, report)),
        one_sided={fault.name: fault.only for fault in faults if fault.only},
        cases=judged.cases,
        alarms=judged.alarms,
        worst=judged.worst,
        judged=judged.elements,
        floors=_floors(subjects[0], recipe, data),
    )


def _cell(trial: Trial | None) -> str:
    if trial is None:
        return "-"
    return f"at {trial.found} !" if trial.outcome == "caught" else trial.outcome


def _trials(
    faults: list[Fault], subjects: tuple[Subject, Subject], device: Device, report: Progress
) -> Iterator[Trial]:
    """Plant each mistake into each subject that can have it."""
    truth = read_dataset("digits")
    for done, fault in enumerate(faults, start=1):
        recipe = Recipe(dataset="digits", device=device, dtype=fault.dtype)
        state = initial_state(recipe.seed, recipe.dtype)
        for subject in subjects:
            if subject.backend_name not in fault.edits:
                continue
            with planted(subject.backend_name, fault.edits[subject.backend_name]):
                found, evidence = _first_wrong(subject, recipe, truth, state)
            yield Trial(
                fault=fault.name,
                subject=str(subject),
                expected=fault.stage,
                found=found,
                evidence=evidence,
            )
        report("planted mistakes", done, len(faults))


def _first_wrong(
    subject: Subject, recipe: Recipe, truth: Dataset, state: State
) -> tuple[str | None, str]:
    try:
        judged = judge(subject, recipe, subject.load_dataset(recipe), truth, state)
    except NondeterminismError as error:
        return "not deterministic", str(error)
    wrong = next((c for c in judged.values() if not c.agrees), None)
    return (wrong.stage, str(wrong)) if wrong else (None, "")


@dataclass
class _Correct:
    """Adds up what is found in right code."""

    cases: int = 0
    elements: int = 0
    alarms: list[Alarm] = dataclasses.field(default_factory=list)
    worst: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(
        self, subject: Subject, recipe: Recipe, trained: bool, judged: dict[str, Comparison]
    ) -> None:
        self.cases += 1
        for stage, comparison in judged.items():
            self.elements += comparison.elements
            self.worst[stage] = max(self.worst.get(stage, 0), comparison.ratio)
        wrong = next((c for c in judged.values() if not c.agrees), None)
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


def _cases(
    subjects: tuple[Subject, Subject], recipe: Recipe, data: Dataset, cases: int, report: Progress
) -> Iterator[tuple[Subject, Recipe, bool, dict[str, Comparison]]]:
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


def _floors(subject: Subject, recipe: Recipe, data: Dataset) -> dict[str, Floor]:
    """Plant errors of falling size in each element of each stage of a step."""
    state = initial_state(recipe.seed, recipe.dtype)
    batch = next(batches(seed=0, epoch=1, examples=len(data.train), batch_size=recipe.batch_size))
    images, labels = pixels(data.train.images[batch], recipe.dtype), data.train.labels[batch]
    with subject.session(recipe, state) as session:
        trace = session.trace(images, labels)
    expected = expectations(trace, state, images, labels, lr=recipe.lr)
    floors = {}
    for stage in STAGES:
        value, bound = expected[stage]
        shares = []
        sizes = 2.0 ** -np.arange(60)
        for size in sizes:
            planted_in = trace[stage] + (size * np.abs(value).max()).astype(trace[stage].dtype)
            shares.append((np.abs(planted_in - value) > bound).mean())
        floors[stage] = Floor(half=_smallest(sizes, shares, 0.5), every=_smallest(sizes, shares, 1))
    return floors


def _smallest(sizes: np.ndarray, shares: list[float], least: float) -> float:
    """Return the smallest size down to which at least that share is caught."""
    enough = itertools.takewhile(lambda pair: pair[1] >= least, zip(sizes, shares, strict=True))
    return float(min((size for size, _ in enough), default=np.inf))
