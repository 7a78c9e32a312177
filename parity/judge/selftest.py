"""Is the harness to be trusted? It must find every planted mistake, and none in right code."""

import dataclasses
import itertools
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from parity.contract.cli.tables import aligned
from parity.contract.data.datasets import Dataset, pixels, read_dataset
from parity.contract.errors import NondeterminismError, RecipeError
from parity.contract.recipe import DatasetName, Device, Recipe, require_integer
from parity.contract.state import initial_state
from parity.judge.check import judge
from parity.judge.compare import Judged, Progress, first_wrong
from parity.judge.steps import examine, first_order
from parity.subjects.faults import CONTRACT, TWINS, Fault, catalogue, planted
from parity.subjects.subject import Subject
from parity.truth.propagation import STEP_STAGES
from parity.truth.stages import STAGES, expectations

BATCH_SIZES = (1, 7, 32, 64, 256)
"""Of the correct cases, in turn."""


@dataclass(frozen=True)
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
    def outcome(self) -> Literal["located", "caught", "missed"]:
        """Whether it was found, and at its stage."""
        if self.found is None:
            return "missed"
        return "located" if self.found.startswith(self.expected) else "caught"

    def __str__(self) -> str:
        return f"at {self.found} !" if self.outcome == "caught" else self.outcome


class Alarm(NamedTuple):
    """A correct case in which something was outside its bound."""

    subject: str
    seed: int
    batch_size: int
    trained: bool
    """Whether it started from weights after an epoch."""
    evidence: str


class Floor(NamedTuple):
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

    def __str__(self) -> str:
        findings = []
        if self.trials:
            ended = [trial.outcome for trial in self.trials]
            findings.append(
                f"of {len(ended)} planted mistakes {ended.count('located')} located,"
                f" {ended.count('caught')} caught elsewhere, {ended.count('missed')} missed"
            )
        if self.cases:
            wrong = f"{len(self.alarms)} called wrong ({self.judged:,} elements judged)"
            findings.append(f"of {self.cases} correct cases {wrong}")
        return f"{'passed' if self.passed else 'failed'}: {'; '.join(findings) or 'nothing tried'}"

    def __repr__(self) -> str:
        return f"<SelfTest {self}>"

    def table(self) -> str:
        """Return a line a mistake, then a line a stage, then every false alarm."""
        rows: list[tuple[str, ...]] = [("mistake", "stage", self.a, self.b)]
        key = operator.attrgetter("fault", "expected")
        for (fault, stage), trials in itertools.groupby(self.trials, key):
            ended = {trial.subject: str(trial) for trial in trials}
            rows.append((fault, stage, *(ended.get(name, "-") for name in (self.a, self.b))))
        lines = aligned(rows, left=2) if self.trials else []
        lines += [f"  {fault}: only one, {why}" for fault, why in self.one_sided.items()]
        rows = [("stage", "worst error / bound", "caught in half", "caught in all")]
        for stage in ("init", *STAGES, *STEP_STAGES):
            ratio = f"{self.worst[stage]:.3f}" if stage in self.worst else "-"
            caught = [f"{size:.1e}" for size in self.floors.get(stage, ())] or ["-", "-"]
            rows.append((stage, ratio, *caught))
        what = "the smallest error caught in half or all elements, over the scale"
        lines += ["", f"correct cases; and {what}", *aligned(rows)]
        for alarm in self.alarms:
            weights = f"weights {'after an epoch' if alarm.trained else 'at init'}"
            case = f"{alarm.subject}, seed {alarm.seed}, batch of {alarm.batch_size}, {weights}"
            lines.append(f"false alarm: {case}: {alarm.evidence}")
        return "\n".join([*lines, ""])


def selftest(
    *,
    a: str = "torch:eager",
    b: str = "jax:jit",
    dataset: DatasetName = "digits",
    data_dir: Path | None = None,
    cases: int = 40,
    only: Literal["mistakes", "correct"] | None = None,
    device: Device = "auto",
    progress: Progress = lambda *_: None,
) -> SelfTest:
    """Plant every mistake of the catalogue into each subject, and judge right code as well.

    Mistakes are planted on the bundled digits. In each subject's correct cases, on `dataset`, batch
    sizes, weights at init and after an epoch, and seeds take turns. It raises RecipeError where
    mistakes cannot be planted into a subject, DataError and DeviceError for what is not there.
    """
    require_integer("cases", cases, at_least=1)
    subjects = Subject.parse(a), Subject.parse(b)
    recipe = Recipe(dataset=dataset, data_dir=data_dir, device=device)
    for subject in subjects:
        if subject.backend_name not in TWINS:
            raise RecipeError(f"mistakes are planted into a backend, not into {subject}")
        if subject.kernel != "layers" and only != "correct":
            raise RecipeError(f"mistakes are planted into layers; {subject} needs --only correct")
        subject.resolve(recipe)
    data = subjects[0].load_dataset(recipe)
    faults = [] if only == "correct" else catalogue()
    cases = 0 if only == "mistakes" else cases
    judged = list(_judge_right_code(subjects, recipe, data, cases, progress))
    comparisons = [comparison for _, found in judged for comparison in found.values()]
    worst: dict[str, float] = {}
    for each in comparisons:
        worst[each.stage] = max(worst.get(each.stage, 0), each.ratio)
    return SelfTest(
        a=a,
        b=b,
        dataset=dataset,
        trials=list(_plant(faults, subjects, device, progress)),
        one_sided={fault.name: fault.only for fault in faults if fault.only},
        cases=len(judged),
        alarms=[alarm for alarm, _ in judged if alarm],
        worst=worst,
        judged=sum(each.elements for each in comparisons),
        floors=_floors(subjects[0], recipe, data),
    )


def _judge_right_code(
    subjects: tuple[Subject, Subject], recipe: Recipe, data: Dataset, cases: int, report: Progress
) -> Iterator[tuple[Alarm | None, Judged]]:
    """Judge the steps of right code from many states."""
    for turn, begin in enumerate(range(0, cases, len(BATCH_SIZES))):
        seed, trained = turn // 2, turn % 2 == 1
        epoch = dataclasses.replace(recipe, seed=seed, epochs=1, batch_size=64)
        state = subjects[0].fit(epoch, data).state if trained else initial_state(seed, recipe.dtype)
        for done, size in enumerate(BATCH_SIZES[: cases - begin], start=begin + 1):
            this = dataclasses.replace(recipe, seed=seed, batch_size=size)
            for subject in subjects:
                judged = examine(subject, this, data.train, state)
                wrong = first_wrong(judged)
                yield wrong and Alarm(str(subject), seed, size, trained, str(wrong)), judged
            report("correct cases", done, cases)


def _plant(
    faults: list[Fault], subjects: tuple[Subject, Subject], device: Device, report: Progress
) -> Iterator[Trial]:
    """Plant each mistake into each subject that can have it, or into what all share."""
    truth = read_dataset("digits")
    for done, fault in enumerate(faults, start=1):
        recipe = Recipe(dataset="digits", device=device, dtype=fault.dtype)
        state = initial_state(recipe.seed, recipe.dtype)
        for subject in subjects:
            where = subject.backend_name if subject.backend_name in fault.edits else CONTRACT
            if where not in fault.edits:
                continue
            own = subject
            if fault.processes > 1:  # JAX divides a batch under jit only
                mode = "jit" if subject.backend_name == "jax" else subject.mode
                own = dataclasses.replace(subject, processes=fault.processes, mode=mode)
            with planted(where, fault.edits[where]):
                try:
                    wrong = first_wrong(
                        judge(own, recipe, subject.load_dataset(recipe), truth, state)
                    )
                    found, evidence = (wrong.stage, str(wrong)) if wrong else (None, "")
                except NondeterminismError as error:
                    found, evidence = "not deterministic", str(error)
            yield Trial(fault.name, str(subject), fault.stage, found, evidence)
        report("planted mistakes", done, len(faults))


def _floors(subject: Subject, recipe: Recipe, data: Dataset) -> dict[str, Floor]:
    """Plant errors of falling size in each element of each stage of a step."""
    state = initial_state(recipe.seed, recipe.dtype)
    batch = first_order(recipe, len(data.train))[0]
    images, labels = pixels(data.train.images[batch], recipe.dtype), data.train.labels[batch]
    with subject.session(recipe, state) as session:
        trace = session.trace(images, labels)
    floors, sizes = {}, 2.0 ** -np.arange(60)
    for stage, (value, bound) in expectations(trace, state, images, labels, lr=recipe.lr):
        errors = (sizes * np.abs(value).max()).astype(trace[stage].dtype)
        shares = [(np.abs(trace[stage] + error - value) > bound).mean() for error in errors]
        caught = np.minimum.accumulate(shares)  # of errors of this size and of any larger one
        half, every = (float(sizes[caught >= least].min(initial=np.inf)) for least in (0.5, 1))
        floors[stage] = Floor(half, every)
    return floors
