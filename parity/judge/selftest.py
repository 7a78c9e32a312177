"""Is the harness to be trusted? It must find every planted mistake, and none in right code."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parity.contract.cli.tables import aligned
from parity.contract.errors import RecipeError
from parity.contract.recipe import DatasetName, Device, Recipe
from parity.judge.cases import Alarm, Correct, Floor, cases_of, floors
from parity.judge.trials import Outcome, Progress, Trial, tried
from parity.subjects.faults import TWINS, catalogue
from parity.subjects.subject import Subject
from parity.truth.propagation import STEP_STAGES
from parity.truth.stages import STAGES

Part = Literal["mistakes", "correct"]


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
        progress: called after every mistake and every case.

    Raises:
        RecipeError: a subject is not a backend's, or has no layers to plant mistakes into; or
            `cases` is not a positive integer.
        CnnParityError: the data or the device is not there.
    """
    if not isinstance(cases, int) or isinstance(cases, bool) or cases < 1:
        raise RecipeError(f"cases must be an integer of at least 1, got {cases!r}")
    subjects = Subject.parse(a), Subject.parse(b)
    for subject in subjects:
        if subject.backend_name not in TWINS:
            raise RecipeError(f"mistakes are planted into a backend, not into {subject}")
        if subject.kernel != "layers" and only != "correct":
            raise RecipeError(f"mistakes are planted into layers; {subject} needs --only correct")
    recipe = Recipe(dataset=dataset, data_dir=data_dir, device=device)
    for subject in subjects:
        subject.resolve(recipe)
    data = subjects[0].load_dataset(recipe)
    report = progress or (lambda *_: None)
    faults = [] if only == "correct" else catalogue()
    judged = Correct()
    for case in cases_of(subjects, recipe, data, 0 if only == "mistakes" else cases, report):
        judged.add(*case)
    return SelfTest(
        a=a,
        b=b,
        dataset=dataset,
        trials=list(tried(faults, subjects, device, report)),
        one_sided={fault.name: fault.only for fault in faults if fault.only},
        cases=judged.cases,
        alarms=judged.alarms,
        worst=judged.worst,
        judged=judged.elements,
        floors=floors(subjects[0], recipe, data),
    )


def _cell(trial: Trial | None) -> str:
    if trial is None:
        return "-"
    return f"at {trial.found} !" if trial.outcome == "caught" else trial.outcome
