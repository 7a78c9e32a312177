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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.contract.batches import batch_count, batches
from parity.contract.cli.tables import aligned
from parity.contract.data.datasets import Split, pixels, read_dataset
from parity.contract.errors import RecipeError
from parity.contract.recipe import DType, Recipe
from parity.contract.run.history import Evaluation
from parity.contract.state import State, initial_state
from parity.judge.compare import Comparison, Sides
from parity.judge.loop import FREE_RUN_LIMIT
from parity.judge.steps import judge_step
from parity.subjects.environment import environment, inputs
from parity.subjects.subject import Subject

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the step and the number of steps."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How two trainings, left to themselves, lie at some steps."""

    steps: list[int]
    losses: Sides[list[float]]
    """By subject, the loss of every step."""
    apart: list[float]
    """Largest difference of a parameter between the two, at each of `steps`."""
    from_truth: Sides[list[float]] | None
    """By subject, the root mean square distance of the parameters from the float64 training."""
    states: Sides[State] = field(repr=False)
    """By subject, where the training ended."""

    @property
    def parted(self) -> int | None:
        """The first step at which a parameter or a loss differs by more than FREE_RUN_LIMIT."""
        first, second = self.losses
        differences = [
            *zip(self.steps, self.apart, strict=True),
            *((step, abs(a - b)) for step, (a, b) in enumerate(zip(first, second, strict=True), 1)),
        ]
        return min((step for step, d in differences if not d <= FREE_RUN_LIMIT), default=None)

    @property
    def ratio(self) -> float | None:
        """The first subject's last distance from the truth over the second's."""
        if self.from_truth is None or not self.from_truth[1][-1]:
            return None
        return self.from_truth[0][-1] / self.from_truth[1][-1]


@dataclass(frozen=True, kw_only=True)
class Failure:
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
    double: Drift
    single: Drift | None
    """None where only float64 was asked for."""
    judged: int
    """Steps judged by the local check, of each subject."""
    failure: Failure | None
    ran: Sides[Recipe]
    """The recipe of each with device, mode and kernel as they were used."""
    environment: dict[str, Any]
    """What they were computed with."""
    inputs: dict[str, str]
    """SHA-256 of data set, initial state and batches."""
    tests: Sides[Evaluation]
    """By subject, its final state of `last()` on the test images, evaluated by itself."""

    def last(self) -> Drift:
        """The free run in the recipe's precision."""
        return self.single or self.double

    @property
    def agrees(self) -> bool:
        """Whether they are the same algorithm."""
        return self.failure is None and self.double.parted is None

    def __str__(self) -> str:
        if self.failure is not None:
            where = f"step {self.failure.step} of {self.failure.subject}"
            return f"different from stage {self.failure.comparison} in {where}"
        if not self.agrees:
            return (
                f"different: in float64 the trainings have parted by step {self.double.parted},"
                " though every stage of the traced steps is within its bound"
            )
        return "same algorithm" + ("; float32 drift is rounding" if self.single else "")

    def table(self) -> str:
        """Return each epoch's losses, how far apart the trainings are, and what was judged."""
        rows: list[tuple[str, ...]] = [("", self.a, self.b)]
        lines = []
        for dtype, drift in (("float64", self.double), ("float32", self.single)):
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
        progress: told of every step.

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
    run = _Run(subjects, recipe, dataset.train, steps or per_epoch * recipe.epochs, progress)
    truth: dict[int, np.ndarray] = {}
    double = run.free("float64", truth, keep=True)
    single, failure, judged = None, None, 0
    if recipe.dtype == "float32":
        single = run.free("float32", truth, keep=False)
    if recipe.dtype == "float32" or double.parted is not None:
        failure, judged = run.judge(recipe.dtype)
    ends = (single or double).states
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
        double=double,
        single=single,
        judged=judged,
        failure=failure,
        ran=ran,
        environment=environment(subjects, recipe),
        inputs=inputs(dataset, initial_state(recipe.seed, recipe.dtype), run.order()),
        tests=tests,
    )


@dataclass(frozen=True)
class _Run:
    subjects: tuple[Subject, Subject]
    recipe: Recipe
    split: Split
    steps: int
    progress: Progress | None

    def free(self, dtype: DType, truth: dict[int, np.ndarray], *, keep: bool) -> Drift:
        """Train both in lockstep, each from its own state; with `keep`, the first is the truth."""
        recipe = dataclasses.replace(self.recipe, dtype=dtype)
        state = initial_state(recipe.seed, dtype)
        samples, marks = [], _sample_steps(self.steps)
        losses: Sides[list[float]] = Sides([], [])
        apart: list[float] = []
        distances: Sides[list[float]] = Sides([], [])
        with contextlib.ExitStack() as stack:
            sessions = [stack.enter_context(s.session(recipe, state)) for s in self.subjects]
            for step, (images, labels) in enumerate(self._batches(dtype), start=1):
                for session, series in zip(sessions, losses, strict=True):
                    series.append(session.step(images, labels))
                self._report(f"{dtype}, free running", step)
                if step not in marks:
                    continue
                samples.append(step)
                vectors = [_parameters(session.export()) for session in sessions]
                apart.append(float(np.abs(vectors[0] - vectors[1]).max()))
                if keep:
                    truth[step] = vectors[0]
                for vector, series in zip(vectors, distances, strict=True):
                    series.append(float(np.sqrt(np.mean((vector - truth[step]) ** 2))))
            states = Sides(sessions[0].export(), sessions[1].export())
        return Drift(
            steps=samples,
            losses=losses,
            apart=apart,
            from_truth=None if keep else distances,
            states=states,
        )

    def judge(self, dtype: DType) -> tuple[Failure | None, int]:
        """Judge every step of each subject, from the state it starts in; stop at a failure."""
        recipe = dataclasses.replace(self.recipe, dtype=dtype)
        state = initial_state(recipe.seed, dtype)
        with contextlib.ExitStack() as stack:
            sessions = [stack.enter_context(s.session(recipe, state)) for s in self.subjects]
            for step, (images, labels) in enumerate(self._batches(dtype), start=1):
                for subject, session in zip(self.subjects, sessions, strict=True):
                    judged = judge_step(
                        session, images, labels, dtype=subject.dtype(recipe), lr=recipe.lr
                    )
                    for comparison in judged.values():
                        if not comparison.agrees:
                            failure = Failure(
                                subject=str(subject), step=step, comparison=comparison
                            )
                            return failure, step
                self._report(f"{dtype}, step by step", step)
        return None, self.steps

    def _report(self, what: str, step: int) -> None:
        if self.progress is not None:
            self.progress(what, step, self.steps)

    def order(self) -> Iterator[np.ndarray]:
        """Return the indices of each step's images."""
        order = itertools.chain.from_iterable(
            batches(
                seed=self.recipe.seed,
                epoch=epoch,
                examples=len(self.split),
                batch_size=self.recipe.batch_size,
            )
            for epoch in itertools.count(1)
        )
        return itertools.islice(order, self.steps)

    def _batches(self, dtype: DType) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in self.order():
            yield pixels(self.split.images[batch], dtype), self.split.labels[batch]


def _sample_steps(steps: int) -> set[int]:
    """Return about fifty steps, evenly spaced on a logarithmic axis, from first to last."""
    return {round(float(step)) for step in np.geomspace(1, steps, 50)}


def _parameters(state: State) -> np.ndarray:
    return np.concatenate([value.ravel().astype(np.float64) for value in state.params.values()])


def _chunks(values: list[float], size: int) -> Iterator[list[float]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
