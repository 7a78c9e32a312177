"""Do two subjects train the same network? Whole trainings, not single steps.

Three questions, from strong to weak:
(a) in float64, left to themselves, do they stay together to rounding? That is the proof.
(b) in float32, is every step of each within the local bounds, from the state it started in?
(c) in float32, left to themselves, how far is each from the float64 training, and are the two
    distances alike? Rounding is symmetric, a bug is not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.contract.batches import batch_count
from parity.contract.cli.tables import aligned
from parity.contract.data.datasets import read_dataset
from parity.contract.errors import RecipeError
from parity.contract.recipe import Recipe
from parity.contract.run.history import Evaluation
from parity.contract.state import initial_state
from parity.judge.compare import Sides
from parity.judge.lockstep import Drift, Failure, Lockstep, Progress
from parity.subjects.environment import environment, inputs
from parity.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """The answers to (a), (b) and (c)."""

    a: str
    b: str
    recipe: Recipe
    steps: int
    batches_per_epoch: int
    float64: Drift
    float32: Drift | None
    """None where only float64 was asked for."""
    judged: int
    """Steps judged by the local check, of each subject."""
    failure: Failure | None
    ran: tuple[Recipe, Recipe]
    """The recipe of each with device, mode and kernel as they were used."""
    environment: dict[str, Any]
    """What they were computed with."""
    inputs: dict[str, str]
    """SHA-256 of data set, initial state and batches."""
    tests: tuple[Evaluation, Evaluation]
    """By subject, its final state of `last()` on the test images, evaluated by itself."""

    def last(self) -> Drift:
        """The free run in the recipe's precision."""
        return self.float32 or self.float64

    @property
    def agrees(self) -> bool:
        """Whether they are the same algorithm."""
        return self.failure is None and self.float64.parted is None

    def __str__(self) -> str:
        if self.failure is not None:
            where = f"step {self.failure.step} of {self.failure.subject}"
            return f"different from stage {self.failure.comparison} in {where}"
        if not self.agrees:
            return (
                f"different: in float64 the trainings have parted by step {self.float64.parted},"
                " though every stage of the traced steps is within its bound"
            )
        return "same algorithm" + ("; float32 drift is rounding" if self.float32 else "")

    def table(self) -> str:
        """Return each epoch's losses, how far apart the trainings are, and what was judged."""
        rows: list[tuple[str, ...]] = [("", self.a, self.b)]
        lines = []
        for dtype, drift in (("float64", self.float64), ("float32", self.float32)):
            if drift is None:
                continue
            for epoch, (a, b) in enumerate(self.epoch_losses(drift), start=1):
                rows.append((f"{dtype}, epoch {epoch}, loss", f"{a:.3f}", f"{b:.3f}"))
            lines.append(
                f"{dtype}: parameters at most {drift.apart[-1]:.2g} apart after"
                f" {self.steps:,} steps"
            )
            if drift.from_truth is not None:
                ends = " and ".join(f"{distances[-1]:.2g}" for distances in drift.from_truth)
                lines.append(f"{dtype}: {ends} (root mean square) from the float64 training")
        for what, values in (
            ("loss", [f"{test.loss:.4f}" for test in self.tests]),
            ("accuracy", [f"{test.accuracy:.2%}" for test in self.tests]),
        ):
            rows.append((f"{self.recipe.dtype}, test {what}", *values))
        if self.judged:
            lines.append(f"every stage judged in {self.judged:,} steps of each")
        return "\n".join([*aligned(rows), *lines])

    def epoch_losses(self, drift: Drift) -> list[tuple[float, float]]:
        """Return each epoch's summed loss of both, the last epoch as far as it went."""
        sums = (
            [sum(chunk) for chunk in _chunks(losses, self.batches_per_epoch)]
            for losses in drift.losses
        )
        return list(zip(*sums, strict=True))


def train(
    *,
    a: str = "torch:eager",
    b: str = "jax:jit",
    recipe: Recipe,
    steps: int | None = None,
    progress: Progress | None = None,
) -> Trajectory:
    """Train two subjects from the same state on the same batches, and compare the trainings.

    Args:
        a: a subject.
        b: another.
        recipe: what to train; float64 answers (a) only, float32 all three.
        steps: number of steps, instead of the recipe's epochs.
        progress: called after every step.

    Raises:
        RecipeError: there is no such subject, or `steps` is not a positive number.
        CnnParityError: the data or the device is not there.
    """
    if steps is not None and steps < 1:
        raise RecipeError(f"steps must be at least 1, got {steps}")
    subjects = Subject.parse(a), Subject.parse(b)
    ran = Sides(subjects[0].resolve(recipe), subjects[1].resolve(recipe))
    dataset = read_dataset(recipe.dataset, recipe.data_dir).first(recipe.limit)
    per_epoch = batch_count(len(dataset.train), recipe.batch_size)
    run = Lockstep(subjects, recipe, dataset.train, steps or per_epoch * recipe.epochs, progress)
    truth: dict[int, np.ndarray] = {}
    float64 = run.free("float64", truth, keep=True)
    float32, failure, judged = None, None, 0
    if recipe.dtype == "float32":
        float32 = run.free("float32", truth, keep=False)
    if recipe.dtype == "float32" or float64.parted is not None:
        failure, judged = run.judge(recipe.dtype)
    ends = (float32 or float64).states
    tests = Sides(
        *(
            subject.evaluate(recipe, state, dataset.test)
            for subject, state in zip(subjects, ends, strict=True)
        )
    )
    return Trajectory(
        a=a,
        b=b,
        recipe=recipe,
        steps=run.steps,
        batches_per_epoch=per_epoch,
        float64=float64,
        float32=float32,
        judged=judged,
        failure=failure,
        ran=ran,
        environment=environment(subjects, recipe),
        inputs=inputs(dataset, initial_state(recipe.seed, recipe.dtype), run.order()),
        tests=tests,
    )


def _chunks(values: list[float], size: int) -> Iterator[list[float]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
