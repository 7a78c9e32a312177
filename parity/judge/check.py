"""Do two subjects compute the same training step? Stage by stage, against the oracle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from parity.contract.cli.tables import aligned
from parity.contract.data.datasets import Dataset, read_dataset
from parity.contract.recipe import DatasetName, Device, DType, Recipe
from parity.contract.state import State, initial_state
from parity.judge.compare import Comparison, Sides
from parity.judge.definitions import judge_initial, judge_order, judge_pixels
from parity.judge.loop import FIT_STAGES, judge_fit
from parity.judge.steps import Judged, badness, examine, first_batches, judge_data
from parity.subjects.environment import environment, inputs
from parity.subjects.subject import Subject
from parity.truth.propagation import STEP_STAGES
from parity.truth.reference import STAGES

ALL_STAGES = ("data", "init", *STAGES, *STEP_STAGES, *FIT_STAGES)
"""Everything that a verdict is made of, in the order in which a mistake is looked for."""


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
    stages: dict[str, Sides[Comparison | None]]
    """By stage, in the order of the computation: `a` and `b` against the oracle.

    None where there is nothing to judge: after a stage of the wrong shape or dtype, and for the
    oracle's own loop.
    """
    ran: Sides[Recipe]
    """The recipe of each with device, mode and kernel as they were used."""
    environment: dict[str, Any]
    """What they were computed with."""
    inputs: dict[str, str]
    """SHA-256 of data set, initial state and batches."""

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
        return f"disagree ({where}): {subject} is different from stage {comparison}"

    def table(self) -> str:
        """Return a line a stage: each subject's worst error, as a fraction of its bound."""
        rows = [(stage, *map(_cell, pair)) for stage, pair in self.stages.items()]
        head, *lines = aligned([("stage", self.a, self.b), *rows])
        return "\n".join([f"{head}   worst error / its bound", *lines])


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
) -> Verdict:
    """Compare two subjects on the first steps of a training, and their training loops.

    The data sets and the translation of states must be exact; each stage of a traced step is judged
    on the subject's own inputs to it, against the oracle and within its derived bounds.
    The step that trains shows no stages: what it returns is judged within the stages' bounds added
    up. If all that agrees, `fit` has to report what a loop by hand does.

    Args:
        a: a subject.
        b: another.
        dataset: data set that the steps are made on.
        data_dir: folder of its files.
        seed: seed of the initial weights and of the batches.
        batch_size: images in a step.
        device: where to compute.
        dtype: precision to compute in.
        state: where to start, by default the seed's initial state.

    Raises:
        NondeterminismError: a subject differs from itself, so that there is no verdict.
        CnnParityError: a subject, the data or the device is not there.
    """
    subjects = [Subject.parse(text) for text in (a, b)]
    recipe = Recipe(
        dataset=dataset,
        data_dir=data_dir,
        seed=seed,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )
    ran = Sides(*(subject.resolve(recipe) for subject in subjects))
    loaded = [subject.load_dataset(recipe) for subject in subjects]
    truth = read_dataset(recipe.dataset, recipe.data_dir)
    start = state or initial_state(recipe.seed, recipe.dtype)
    judged = [
        judge(subject, recipe, own, truth, start)
        for subject, own in zip(subjects, loaded, strict=True)
    ]
    stages = {stage: Sides(judged[0].get(stage), judged[1].get(stage)) for stage in ALL_STAGES}
    return Verdict(
        a=a,
        b=b,
        recipe=recipe,
        stages=stages,
        ran=ran,
        environment=environment(subjects, recipe),
        inputs=inputs(truth, start, first_batches(recipe, len(truth.train))),
    )


def judge(
    subject: Subject, recipe: Recipe, loaded: Dataset, truth: Dataset, state: State
) -> Judged:
    """Judge a subject's data, its steps from `state` and, if all that agrees, its training loop.

    Args:
        subject: whose computations.
        recipe: what to compute.
        loaded: the recipe's data set as the subject loads it.
        truth: as its files hold it.
        state: where the steps start.

    Raises:
        NondeterminismError: the subject differs from itself.
        DeviceError: the device is not there.
    """
    judged = {"data": judge_data(loaded, truth)} | examine(subject, recipe, truth.train, state)
    for shared in (
        judge_pixels(),
        judge_order(recipe, len(truth.train)),
        judge_initial(recipe.seed),
    ):
        judged[shared.stage] = max(judged[shared.stage], shared, key=badness)
    if subject.backend is not None and all(comparison.agrees for comparison in judged.values()):
        judged |= judge_fit(subject, recipe, truth)
    return judged


def _cell(comparison: Comparison | None) -> str:
    if comparison is None:
        return "-"
    if comparison.agrees:
        return "exact" if comparison.error == 0 else f"{comparison.ratio:.3f}"
    return "wrong" if comparison.mismatch else f"{comparison.ratio:.3g} !"
