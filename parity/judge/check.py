"""Do two subjects compute the same training step? Stage by stage, against the oracle."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from parity.contract.cli.tables import aligned, wrapped
from parity.contract.data.datasets import Dataset, read_dataset
from parity.contract.notebook import bars, shown
from parity.contract.recipe import DatasetName, Device, DType, Recipe
from parity.contract.state import State, initial_state
from parity.judge.compare import Comparison, Judged, Progress, Sides, first_wrong, merge
from parity.judge.definitions import judge_data, judge_shared
from parity.judge.inference import INFERENCE_STAGES, judge_inference
from parity.judge.loop import FIT_STAGES, STEPS_STAGES, covered, epoch_end, judge_loop, short_epochs
from parity.judge.steps import examine, first_order
from parity.subjects.environment import environment, inputs
from parity.subjects.subject import Subject
from parity.truth.propagation import STEP_STAGES
from parity.truth.stages import STAGES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOP_STAGES = (*STEPS_STAGES, *INFERENCE_STAGES, *FIT_STAGES)
"""Judged only of a backend that has what they are about: evaluation, prediction, a loop."""

ALL_STAGES = ("data", "init", *STAGES, *STEP_STAGES, *LOOP_STAGES)
"""Everything that a verdict is made of, in the order in which a mistake is looked for."""


PARTS = ("steps", "evaluation", "short epochs", "a long epoch")
"""What is judged of a subject, one after the other; each compiles what it needs first."""


class Disagreement(NamedTuple):
    """A stage outside its bound, and whose."""

    subject: str
    comparison: Comparison

    def to_json(self) -> dict[str, str]:
        """Return which it is; the evidence is among the verdict's stages."""
        return {"subject": self.subject, "stage": self.comparison.stage}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What each subject's stages are worth; the first disagreement is where a bug is."""

    a: str
    b: str
    recipe: Recipe
    stages: Mapping[str, tuple[Comparison | None, Comparison | None]]
    """By stage, in the order of the computation: `a` and `b` against the oracle.

    None where there is nothing to judge: after a stage of the wrong shape or dtype, and for the
    oracle's own loop.
    """
    ran: tuple[Recipe, Recipe]
    """The recipe of each with device, mode and kernel as they were used."""
    environment: dict[str, Any]
    """What they were computed with."""
    inputs: dict[str, str]
    """SHA-256 of data set, initial state and batches."""
    covered: tuple[str, str]
    """Of each subject, what was judged: steps, epochs, images and the boundaries between them."""

    @property
    def first_disagreement(self) -> Disagreement | None:
        """The first stage that is outside its bound, and whose."""
        for pair in self.stages.values():
            for subject, comparison in zip((self.a, self.b), pair, strict=True):
                if comparison is not None and not comparison.agrees:
                    return Disagreement(subject, comparison)
        return None

    @property
    def agrees(self) -> bool:
        """Whether every stage of both subjects is as near to the truth as rounding allows."""
        return bool(self.stages) and self.first_disagreement is None

    def __str__(self) -> str:
        where = f"{self.recipe.dataset}, {self.recipe.dtype}, seed {self.recipe.seed}"
        if self.first_disagreement is None:
            return (
                f"agree: {self.a} and {self.b} compute the same step ({where});"
                " every difference is rounding"
            )
        subject, comparison = self.first_disagreement
        at = f"{subject} first differs at stage {comparison.stage}"
        return f"disagree ({where}): {at}: {comparison.evidence}"

    def __repr__(self) -> str:
        return f"<Verdict {self}>"

    def _repr_html_(self) -> str:
        """Show itself in a notebook: the picture, the table, the verdict."""
        return shown(f"{self.table()}\n{self}", self.plot())

    def plot(self) -> "Figure":
        """Return a figure of each stage's worst error, as a fraction of its bound."""
        ratios = {
            stage: [math.nan if c is None else c.ratio for c in pair]
            for stage, pair in self.stages.items()
        }
        return bars(ratios, (self.a, self.b), limit=1, label="worst error / its bound")

    def table(self) -> str:
        """Return a line a stage: each subject's worst error, as a fraction of its bound."""
        rows = [(stage, *map(_cell, pair)) for stage, pair in self.stages.items()]
        lines = ["worst error / its bound", *aligned([("stage", self.a, self.b), *rows])]
        for subject, said in zip((self.a, self.b), self.covered, strict=True):
            lines.append(wrapped(f"judged of {subject}: {said}"))
        return "\n".join(lines)


def check(
    *,
    a: str = "torch:eager",
    b: str = "jax:jit",
    dataset: DatasetName = "mnist",
    data_dir: Path | None = None,
    seed: int = 0,
    batch_size: int = 64,
    device: Device = "auto",
    dtype: DType = "float32",
    state: State | None = None,
    progress: Progress = lambda *_: None,
) -> Verdict:
    """Compare two subjects on the first steps of a training, and all that a training is made of.

    The data sets and the translation of states must be exact; each stage of a traced step is judged
    on the subject's own inputs to it, against the oracle and within its derived bounds. The step
    that trains shows no stages: what it returns is judged within the stages' bounds added up. If
    all that agrees, evaluation and prediction are judged against the oracle too, and `fit` must end
    each stretch in the state in which the same steps end. The steps start at `state`, by default
    the seed's initial one; `progress` is called before each part. It raises NondeterminismError if
    a subject differs from itself, and RecipeError, DataError or DeviceError for a subject, data or
    a device that is not there.
    """
    options = {"seed": seed, "batch_size": batch_size, "device": device, "dtype": dtype}
    recipe = Recipe(dataset=dataset, data_dir=data_dir, **options)
    subjects = [Subject.parse(text) for text in (a, b)]
    ran = Sides(*(subject.resolve(recipe) for subject in subjects))
    loaded = [subject.load_dataset(recipe) for subject in subjects]  # or download it
    truth = read_dataset(recipe.dataset, recipe.data_dir)
    start = state or initial_state(recipe.seed, recipe.dtype)
    progress("what all share", 0, 2 * len(PARTS) + 1)
    shared = judge_shared(recipe, len(truth.train))
    judged = []
    for turn, (subject, own) in enumerate(zip(subjects, loaded, strict=True)):
        parts = _counted(progress, subject, 1 + turn * len(PARTS))
        judged.append(judge(subject, recipe, own, truth, start, shared, parts))
    return Verdict(
        a=a,
        b=b,
        recipe=recipe,
        stages={stage: Sides(*(of.get(stage) for of in judged)) for stage in ALL_STAGES},
        ran=ran,
        environment=environment(subjects, recipe),
        inputs=inputs(truth, start, first_order(recipe, len(truth.train))),
        covered=Sides(*map(covered, subjects, (recipe, recipe), judged)),
    )


def judge(
    subject: Subject,
    recipe: Recipe,
    loaded: Dataset,
    truth: Dataset,
    state: State,
    shared: Judged | None = None,
    begin: Callable[[str], None] = lambda _: None,
) -> Judged:
    """Judge a subject's data, its steps from `state` and, if all that agrees, what else it does.

    That is the training loop, evaluation and prediction, as far as the backend has them.

    `loaded` is the data set as the subject loads it, `truth` as its files hold it, `shared` what
    `judge_shared` returns, if known; `begin` is called with each of PARTS. It raises
    NondeterminismError, or DeviceError.
    """
    begin(PARTS[0])
    judged = {"data": judge_data(loaded, recipe)} | examine(subject, recipe, truth.train, state)
    merge(judged, *(shared or judge_shared(recipe, len(truth.train))).values())
    for part, needed, more in (
        (PARTS[1], ("evaluate", "predict"), lambda: judge_inference(subject, recipe, truth.train)),
        (
            PARTS[2],
            ("fit",),
            lambda: judge_loop(subject, short_epochs(recipe, truth, subject.processes)),
        ),
        (PARTS[3], ("fit",), lambda: judge_loop(subject, epoch_end(subject, recipe, truth))),
    )[: 3 if subject.processes == 1 else 2]:
        if first_wrong(judged) is None and subject.can(*needed):
            begin(part)
            merge(judged, *more().values())
    return {stage: judged[stage] for stage in ALL_STAGES if stage in judged}


def _counted(progress: Progress, subject: Subject, done: int) -> Callable[[str], None]:
    """Return what reports a part of a subject's, of both subjects' parts and the one before."""
    total = 2 * len(PARTS) + 1
    return lambda part: progress(f"{subject}: {part}", done + PARTS.index(part), total)


def _cell(comparison: Comparison | None) -> str:
    if comparison is None:
        return "-"
    if comparison.agrees:
        return "exact" if comparison.error == 0 else f"{comparison.ratio:.3f}"
    return "wrong" if comparison.mismatch else f"{comparison.ratio:.3g} !"
