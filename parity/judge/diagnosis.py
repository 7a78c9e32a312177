"""What does this machine compute? Each subject against the oracle, and against itself."""

import dataclasses
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from parity.contract.backend import Trace
from parity.contract.cli.convolutions import XLA_FLAGS
from parity.contract.cli.tables import aligned, wrapped
from parity.contract.data.datasets import read_dataset
from parity.contract.errors import DeviceError
from parity.contract.recipe import Device, DType, Recipe, require_integer
from parity.contract.state import initial_state
from parity.judge import steps
from parity.judge.compare import Comparison, EvidenceError, Judged, Progress, first_wrong
from parity.subjects.environment import environment, environment_lines, remarks
from parity.subjects.subject import BACKENDS, KERNELS, MODES, Subject

ON_CPU = "one thread: taskset -c 0 parity doctor"
ON_ACCELERATOR = f"--device cpu or, for JAX on a GPU, XLA_FLAGS='{' '.join(XLA_FLAGS)}'"
"""What may make a subject deterministic."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found about one subject."""

    missing: str | None = None
    """Why it is not available on this machine."""
    failure: str | None = None
    """What its framework said as it broke down."""
    stages: dict[str, Comparison] = field(default_factory=dict)
    """Every stage of one step against the oracle."""
    repetition: steps.Repetition | None = None
    """The step that training uses, again and again."""
    outcome: Trace = field(default_factory=dict, repr=False)
    """What that step leaves behind."""

    @property
    def wrong(self) -> Comparison | None:
        """The first stage outside its bound."""
        return first_wrong(self.stages)

    @property
    def right(self) -> bool:
        """Whether every stage of its step is as near to the truth as rounding allows."""
        return bool(self.stages) and self.wrong is None and self.failure is None

    @property
    def deterministic(self) -> bool:
        """Whether the step has one result, as far as it was made."""
        return self.repetition is None or self.repetition.distinct == 1


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What each subject on this machine computes, with what, and what that means."""

    recipe: Recipe
    runs: int
    environment: dict[str, Any]
    subjects: dict[str, Examination]

    @property
    def exit_code(self) -> int:
        """0 all available subjects are right and deterministic, 1 one is not right, else 3."""
        available = [found for found in self.subjects.values() if found.missing is None]
        if not all(found.right for found in available):
            return 1
        return 0 if all(found.deterministic for found in available) else 3

    @property
    def healthy(self) -> bool:
        """Whether every available subject is right and deterministic."""
        return self.exit_code == 0

    @property
    def modes(self) -> dict[str, steps.Difference | None]:
        """By backend that ran in both modes, how jit and eager differ; None for the same bits."""
        none = Examination()
        pairs = {
            backend: [self.subjects.get(f"{backend}:{mode}", none).outcome for mode in MODES]
            for backend in BACKENDS
        }
        return {backend: steps.difference(a, b) for backend, (a, b) in pairs.items() if a and b}

    def __str__(self) -> str:
        lines = [f"note: {line}" for line in remarks(self.environment, self.recipe.dtype)]
        lines += [line for name in self.subjects for line in self._findings(name)]
        if self.healthy:
            lines.append(
                "healthy: every available subject computes the step to rounding,"
                " and repeats itself bit for bit"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        found = "healthy" if self.healthy else "not healthy"
        return f"<Diagnosis of {', '.join(self.subjects)}: {found}>"

    def table(self) -> str:
        """Return the environment, then a line a subject, then one a backend's two modes.

        That the modes give different bits is no fault: fusion changes the order of rounding.
        """
        r = self.recipe
        title = f"{r.dataset}, {r.dtype}, seed {r.seed}, batch of {r.batch_size}"
        rows = [("subject", "worst error / its bound", f"the same step {self.runs} times")]
        rows += [(name, *_cells(found)) for name, found in self.subjects.items()]
        lines = [*environment_lines(self.environment), "", title, *aligned(rows, left=3)]
        reasons = dict.fromkeys(found.missing for found in self.subjects.values() if found.missing)
        for reason in reasons:
            names = [name for name, found in self.subjects.items() if found.missing == reason]
            lines.append(wrapped(f"not available: {', '.join(names)}: {reason}"))
        for backend, parted in self.modes.items():
            said = f"differ in bits: {parted}" if parted else "give the same bits"
            lines.append(wrapped(f"{backend}: jit and eager {said}"))
        return "\n".join([*lines, ""])

    def _findings(self, name: str) -> Iterator[str]:
        """Yield what is wrong with a subject, what that means and what helps."""
        found = self.subjects[name]
        if found.failure is not None:
            yield f"{name}: fails: {found.failure}"
        if found.wrong is not None:
            yield f"{name}: wrong from stage {found.wrong}; {self._meaning(name)}"
        if found.repetition is not None and not found.deterministic:
            on_cpu = self.environment[name.partition(":")[0]]["device"] == "cpu"
            yield (
                f"{name}: {found.repetition.distinct} distinct results in {self.runs} runs,"
                f" {found.repetition.difference}: not deterministic, so parity gives no verdict on"
                f" it; try {ON_CPU if on_cpu else ON_ACCELERATOR}"
            )

    def _meaning(self, name: str) -> str:
        """Say what it means that a subject is wrong, given the backend's other mode and kernel."""
        subject = Subject.parse(name)
        for what, choices in (("mode", MODES), ("kernel", KERNELS)):
            own = getattr(subject, what)
            [another] = set(choices) - {own}
            other = str(dataclasses.replace(subject, **{what: another}))
            if other in self.subjects and self.subjects[other].right:
                return f"{other} is right, so this build's {own} {what} computes something else"
        return "this build computes something else, or in a lower precision than its flags say"


def diagnose(
    *,
    device: Device = "auto",
    dtype: DType = "float32",
    seed: int = 0,
    runs: int = 100,
    progress: Progress = lambda *_: None,
) -> Diagnosis:
    """Make one step with every subject: stage by stage against the oracle, and again and again.

    The step is the first one of a training on the bundled digits, in batches of 64. Each subject
    stands for itself: one that is missing or breaks down is noted, and the others go on. `runs` is
    how often each one makes the step, at least 2; `progress` is called after every run. It raises
    RecipeError for other runs, and DeviceError if no subject at all is available on this device.
    """
    require_integer("runs", runs, at_least=2)
    recipe = Recipe(dataset="digits", device=device, dtype=dtype, seed=seed)
    subjects, missing = Subject.all(), {}
    for subject in subjects:
        try:
            subject.resolve(recipe)
        except DeviceError as error:
            missing[subject] = str(error)
    available = [subject for subject in subjects if subject not in missing]
    if not available:
        reasons = "; ".join(dict.fromkeys(missing.values()))
        raise DeviceError(f"no subject is available: {reasons}")

    def after(turns: int) -> Progress:
        """Return what reports a subject's runs among all."""
        total = len(available) * runs
        return lambda what, run, _: progress(what, turns * runs + run, total)

    return Diagnosis(
        recipe=recipe,
        runs=runs,
        environment=environment(available, recipe),
        subjects={
            str(subject): Examination(missing=missing[subject])
            if subject in missing
            else _examine(subject, recipe, runs, after(available.index(subject)))
            for subject in subjects
        },
    )


def _examine(subject: Subject, recipe: Recipe, runs: int, report: Progress) -> Examination:
    """Judge the steps of one subject, then repeat the first as training makes it."""
    batches = steps.first_batches(recipe, read_dataset(recipe.dataset).train)
    state = initial_state(recipe.seed, recipe.dtype)
    stages: Judged = {}
    report(f"{subject}, compiling" if subject.mode == "jit" else f"{subject}", 0, runs)
    try:
        with subject.session(recipe, state) as session:
            stages = steps.judge_steps(session, subject.resolve(recipe), state, batches)
            outcome, repetition = steps.repeat(
                lambda: steps.plain_step(session, state, batches, 0),
                runs=runs,
                progress=lambda run: report(f"{subject}", run, runs),
            )
        return Examination(stages=stages, outcome=outcome, repetition=repetition)
    except EvidenceError as error:
        return Examination(stages={error.comparison.stage: error.comparison})
    except RuntimeError as error:  # what compilers, runtimes and drivers raise
        said = textwrap.shorten(f"{type(error).__name__}: {error}", 240, placeholder=" ...")
        return Examination(stages=stages, failure=said)


def _cells(found: Examination) -> tuple[str, str]:
    """Return a subject's worst stage, and whether its step repeats itself."""
    if found.missing is not None:
        return "-", "not available"
    worst = found.wrong or max(found.stages.values(), key=lambda c: c.ratio, default=None)
    mark = " !" if found.wrong else ""
    judged = f"{worst.ratio:.3g}{mark} at {worst.stage}" if worst else "-"
    if found.repetition is None:
        return judged, "-"
    distinct = found.repetition.distinct
    return judged, "the same bits" if distinct == 1 else f"{distinct} distinct results !"
