"""Do two subjects train the same network? Whole trainings, not single steps.

Three questions, from strong to weak:
(a) in float64, left to themselves, do they stay together to rounding? That is the proof.
(b) in float32, is every step of each within the local bounds, from the state it started in?
(c) in float32, left to themselves, how far is each from the float64 training, and are the two
    distances alike? Rounding is symmetric, a bug is not.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from parity.contract.backend import Session
from parity.contract.batches import batch_count
from parity.contract.cli.tables import aligned, wrapped
from parity.contract.data.datasets import Split, pixels, read_dataset
from parity.contract.errors import RecipeError
from parity.contract.recipe import DType, Recipe
from parity.contract.run.history import Evaluation
from parity.contract.state import State, initial_state
from parity.judge.compare import Comparison, Progress, Sides
from parity.judge.steps import judge_step
from parity.subjects.environment import environment, inputs
from parity.subjects.subject import ORACLE, Subject

FREE_RUN_LIMIT = 1e-10
"""Largest difference of a parameter or loss between two float64 trainings that are the same.

Rounding starts at 1e-16 and grows with the training's own sensitivity; ten epochs of MNIST end at
4e-14. A mistake that matters, one lost batch say, moves parameters by a part of the learning rate:
1e-4 and more."""

_Vectors = Float[np.ndarray, "steps 2 27210"]
"""The parameters of both subjects at some steps."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How two trainings, left to themselves, lie at some steps."""

    steps: list[int]
    losses: tuple[list[float], list[float]]
    """By subject, the loss of every step."""
    apart: list[float]
    """Largest difference of a parameter between the two, at each of `steps`."""
    from_truth: tuple[list[float], list[float]] | None
    """By subject, the root mean square distance of the parameters from the float64 training."""
    states: tuple[State, State] = field(repr=False)
    """By subject, where the training ended."""

    @property
    def parted(self) -> int | None:
        """The first step at which a parameter or a loss differs by more than FREE_RUN_LIMIT."""
        differences = [
            *zip(self.steps, self.apart, strict=True),
            *enumerate((abs(a - b) for a, b in zip(*self.losses, strict=True)), start=1),
        ]
        return min((step for step, d in differences if not d <= FREE_RUN_LIMIT), default=None)

    @property
    def ratio(self) -> float | None:
        """The first subject's last distance from the truth over the second's."""
        if self.from_truth is None or not self.from_truth[1][-1]:
            return None
        return self.from_truth[0][-1] / self.from_truth[1][-1]


class Failure(NamedTuple):
    """A step of which a stage is outside its bound."""

    subject: str
    step: int
    comparison: Comparison


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
    """By subject, its final state of `last()` on the test images, evaluated by itself if it can."""

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
            first = self.failure.comparison
            return f"different from stage {first.stage} on, first in {where}: {first.evidence}"
        if not self.agrees:
            though = ", though every stage of the traced steps is within its bound"
            return (
                f"different: in float64 the trainings have parted by step {self.float64.parted}"
                f"{though * bool(self.judged)}"
            )
        return "same algorithm" + ("; float32 drift is rounding" if self.float32 else "")

    def __repr__(self) -> str:
        return f"<Trajectory {self}>"

    def table(self) -> str:
        """Return each epoch's losses, how far apart the trainings are, and what was judged."""
        rows: list[tuple[str, ...]] = [("", self.a, self.b)]
        lines = []
        for dtype, drift in (("float64", self.float64), ("float32", self.float32)):
            if drift is None:
                continue
            for epoch, (a, b) in enumerate(self.epoch_losses(drift), start=1):
                rows.append((f"{dtype}, epoch {epoch}, loss", f"{a:.3f}", f"{b:.3f}"))
            apart = f"parameters at most {drift.apart[-1]:.2g} apart after {self.steps:,} steps"
            lines.append(f"{dtype}: {apart}")
            if drift.from_truth is not None:
                ends = " and ".join(f"{distances[-1]:.2g}" for distances in drift.from_truth)
                lines.append(f"{dtype}: {ends} (root mean square) from the float64 training")
        test = f"{self.recipe.dtype}, test"
        rows.append((f"{test} loss", *(f"{each.loss:.4f}" for each in self.tests)))
        rows.append((f"{test} accuracy", *(f"{each.accuracy:.2%}" for each in self.tests)))
        if self.judged:
            lines.append(f"every stage judged in {self.judged:,} steps of each")
        return "\n".join([*aligned(rows), *map(wrapped, lines)])

    def epoch_losses(self, drift: Drift) -> list[tuple[float, float]]:
        """Return each epoch's summed loss of both, the last epoch as far as it went."""
        size = self.batches_per_epoch
        starts = range(0, len(drift.losses[0]), size)
        a, b = ([sum(each[start : start + size]) for start in starts] for each in drift.losses)
        return list(zip(a, b, strict=True))


def train(
    *,
    a: str = "torch:eager",
    b: str = "jax:jit",
    recipe: Recipe,
    steps: int | None = None,
    progress: Progress = lambda *_: None,
) -> Trajectory:
    """Train two subjects from the same state on the same batches, and compare the trainings.

    A recipe in float64 answers (a) only, one in float32 all three. `steps` counts instead of the
    recipe's epochs; `progress` is called after every step. It raises RecipeError for an unknown
    subject or steps below 1, DataError and DeviceError for what is not there.
    """
    if steps is not None and steps < 1:
        raise RecipeError(f"steps must be at least 1, got {steps}")
    subjects = Subject.parse(a), Subject.parse(b)
    ran = Sides(*(subject.resolve(recipe) for subject in subjects))
    dataset = read_dataset(recipe.dataset, recipe.data_dir).first(recipe.limit)
    per_epoch = batch_count(len(dataset.train), recipe.batch_size)
    count = steps or per_epoch * recipe.epochs
    run = _Lockstep(subjects, recipe, dataset.train, count, progress)
    float64, truth = run.free("float64")
    float32, failure, judged = None, None, 0
    if recipe.dtype == "float32":
        float32, _ = run.free("float32", truth)
    stages = all(subject.processes == 1 for subject in subjects)  # of several none are shown
    if stages and (recipe.dtype == "float32" or float64.parted is not None):
        failure, judged = run.judge(recipe.dtype)
    able = (s if s.can("evaluate") else Subject.parse(ORACLE) for s in subjects)
    ends = zip(able, (float32 or float64).states, strict=True)
    return Trajectory(
        a=a,
        b=b,
        recipe=recipe,
        steps=count,
        batches_per_epoch=per_epoch,
        float64=float64,
        float32=float32,
        judged=judged,
        failure=failure,
        ran=ran,
        environment=environment(subjects, recipe),
        inputs=inputs(dataset, initial_state(recipe.seed, recipe.dtype), run.order()),
        tests=Sides(*(subject.evaluate(recipe, end, dataset.test) for subject, end in ends)),
    )


class _Lockstep(NamedTuple):
    """Two trainings, side by side: the same batches, each from its own state."""

    subjects: tuple[Subject, Subject]
    recipe: Recipe
    split: Split
    total: int
    report: Progress

    def free(self, dtype: DType, truth: _Vectors | None = None) -> tuple[Drift, _Vectors]:
        """Train both, left to themselves; sample about fifty steps, evenly in their logarithm."""
        marks = sorted({round(step) for step in np.geomspace(1, self.total, 50).tolist()})
        losses, samples = Sides([], []), []
        with self._sessions(dtype) as sessions:
            for step, images, labels in self._steps(dtype, "free running"):
                batch = np.arange(len(labels))[None]
                for session, series in zip(sessions, losses, strict=True):
                    series.extend(session.steps(images, labels, batch).tolist())
                if step in marks:
                    params = [session.export().params.values() for session in sessions]
                    samples.append([np.concatenate([*map(np.ravel, of)]) for of in params])
            states = Sides(*(session.export() for session in sessions))
        vectors, distances = np.array(samples, np.float64), None
        if truth is not None:
            squares = (vectors - truth[:, :1]) ** 2  # the first subject's float64 run is the truth
            distances = Sides(*np.sqrt(squares.mean(axis=2)).T.tolist())
        drift = Drift(
            steps=marks,
            losses=losses,
            apart=np.abs(vectors[:, 0] - vectors[:, 1]).max(axis=1).tolist(),
            from_truth=distances,
            states=states,
        )
        return drift, vectors

    def judge(self, dtype: DType) -> tuple[Failure | None, int]:
        """Judge every step of each subject, from the state it starts in; stop at a failure."""
        recipe = dataclasses.replace(self.recipe, dtype=dtype)
        with self._sessions(dtype) as sessions:
            for step, images, labels in self._steps(dtype, "step by step"):
                for subject, session in zip(self.subjects, sessions, strict=True):
                    for comparison in judge_step(session, subject.resolve(recipe), images, labels):
                        if not comparison.agrees:
                            return Failure(str(subject), step, comparison), step
        return None, self.total

    @contextlib.contextmanager
    def _sessions(self, dtype: DType) -> Iterator[list[Session]]:
        recipe = dataclasses.replace(self.recipe, dtype=dtype)
        state = initial_state(recipe.seed, dtype)
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(each.session(recipe, state)) for each in self.subjects]

    def _steps(self, dtype: DType, what: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield each step's number, images and labels; report it once it is made."""
        for step, batch in enumerate(self.order(), start=1):
            yield step, pixels(self.split.images[batch], dtype), self.split.labels[batch]
            self.report(f"{dtype}, {what}", step, self.total)

    def order(self) -> Iterator[np.ndarray]:
        """Return the indices of each step's images."""
        epochs = (self.recipe.batches(epoch, len(self.split)) for epoch in itertools.count(1))
        return itertools.islice(itertools.chain.from_iterable(epochs), self.total)
