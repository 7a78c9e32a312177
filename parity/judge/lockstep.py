"""Two subjects trained side by side, and how far apart they come."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from parity.contract.data.datasets import Split, pixels
from parity.contract.recipe import DType, Recipe
from parity.contract.state import State, initial_state
from parity.judge.compare import Comparison, Sides
from parity.judge.steps import judge_step
from parity.subjects.subject import Subject

FREE_RUN_LIMIT = 1e-10
"""Largest difference of a parameter or loss between two float64 trainings that are the same.

Rounding starts at 1e-16 and grows with the training's own sensitivity; ten epochs of MNIST end at
4e-14. A mistake that matters, one lost batch say, moves parameters by a part of the learning rate:
1e-4 and more."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the step and the number of steps."""


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


@dataclass(frozen=True)
class Lockstep:
    """Two trainings, side by side: the same batches, each from its own state."""

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
        losses: tuple[list[float], list[float]] = Sides([], [])
        apart: list[float] = []
        distances: tuple[list[float], list[float]] = Sides([], [])
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
                    own = subject.resolve(recipe).dtype
                    for comparison in judge_step(session, images, labels, dtype=own, lr=recipe.lr):
                        if not comparison.agrees:
                            found = Failure(subject=str(subject), step=step, comparison=comparison)
                            return found, step
                self._report(f"{dtype}, step by step", step)
        return None, self.steps

    def _report(self, what: str, step: int) -> None:
        if self.progress is not None:
            self.progress(what, step, self.steps)

    def order(self) -> Iterator[np.ndarray]:
        """Return the indices of each step's images."""
        order = itertools.chain.from_iterable(
            self.recipe.batches(epoch, len(self.split)) for epoch in itertools.count(1)
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
