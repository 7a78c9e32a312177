"""A training that a subject's `fit` has made is made again, from each state at which it paused."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from parity.contract.backend import Session
from parity.contract.batches import batch_count
from parity.contract.data.datasets import Dataset, pixels
from parity.contract.recipe import Recipe
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.run.history import History
from parity.contract.run.observers import Observer
from parity.contract.run.progress import Progress
from parity.contract.state import State, initial_state
from parity.judge.compare import Comparison, EvidenceError, Judged, attempt, compare, merge
from parity.judge.inference import expected_figures
from parity.judge.states import numbers
from parity.judge.steps import Batches, judge_plain_step
from parity.subjects.subject import Subject
from parity.truth.rounding import Expectation, exact

STEPS_STAGES = ("steps.losses", "steps.state")
"""Many steps in one call: their losses; the state after them."""

FIT_STAGES = ("fit.losses", "fit.tests", "fit.state")
"""Each epoch's summed loss; each epoch's test loss and accuracy; the states at its pauses."""

EDGES = (127, 128, 255, 256, 32_767, 32_768)
"""Indices around what signed and unsigned integers of 8 and 16 bits hold."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A run of a subject's `fit`, and what it is judged by."""

    subject: Subject
    recipe: Recipe
    """With device, mode and kernel as they are used."""
    data: Dataset
    """What is left by the recipe's limit."""
    start: Checkpoint | None
    history: History
    pauses: list[tuple[int, State]]
    """Where the training paused: number of batches from the first epoch on, and the state."""

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return batch_count(len(self.data.train), self.recipe.batch_size)

    @property
    def begin(self) -> tuple[int, State]:
        """Where it must have started."""
        if self.start is None:
            return 0, initial_state(self.recipe.seed, self.recipe.dtype)
        return (self.start.epoch - 1) * self.steps + self.start.batch, self.start.state

    def batches(self, begin: int, end: int) -> Iterator[np.ndarray]:
        """Yield the indices of some batches, counted from the first epoch on."""
        for epoch in range(begin // self.steps, -(-end // self.steps)):
            order = self.recipe.batches(epoch + 1, len(self.data.train))
            first = epoch * self.steps
            yield from itertools.islice(order, max(0, begin - first), end - first)


class _Recorder(Observer):
    """Keeps the states at which a training pauses."""

    def __init__(self) -> None:
        self.pauses: list[tuple[int, State]] = []

    def paused(self, progress: Progress, state: State) -> None:
        self.pauses.append(((progress.epoch - 1) * progress.steps + progress.batch, state))


def judge_training(
    subject: Subject, recipe: Recipe, dataset: Dataset, start: Checkpoint | None
) -> Judged:
    """Judge a run of `fit`: STEPS_STAGES, if it continues from a checkpoint, and FIT_STAGES.

    Args:
        subject: has a training loop.
        recipe: what is trained.
        dataset: on what; the recipe's limit is applied to it.
        start: where it continues; None for the recipe's initial state.

    Raises:
        DeviceError: the device is not there.
    """
    judged: Judged = {}
    recorder = _Recorder()
    try:
        history = attempt(
            FIT_STAGES[0], lambda: subject.fit(recipe, dataset, start=start, observer=recorder)
        )
        training = Training(
            subject=subject,
            recipe=subject.resolve(recipe),
            data=dataset.first(recipe.limit),
            start=start,
            history=history,
            pauses=recorder.pauses,
        )
        with subject.session(recipe, training.begin[1]) as session:
            merge(judged, *_judge_replay(training, session))
    except EvidenceError as error:
        merge(judged, error.comparison)
    return {stage: judged[stage] for stage in (*STEPS_STAGES, *FIT_STAGES) if stage in judged}


def _judge_replay(training: Training, session: Session) -> Iterator[Comparison]:
    """Make a training again, stretch by stretch, and compare."""
    train, (begin, state) = training.data.train, training.begin
    batches = Batches(pixels(train.images, training.recipe.dtype), train.labels, [])
    end = training.recipe.epochs * training.steps
    pauses = [*training.pauses, (end, training.history.state)]
    ends = range(training.steps, end + 1, training.steps)
    replayed, place, losses = {begin: state}, begin, []
    for mark in sorted({*ends, *(place for place, _ in pauses)}):
        if mark > place:
            order = list(training.batches(place, mark))
            more, state = _steps(session, state, batches, order)
            replayed[mark], place, losses = state, mark, losses + more
    if training.start is not None:
        yield from _judge_edges(training, session, batches)
    got = [numbers(state) for _, state in pauses]
    expected = [numbers(replayed.get(place, training.begin[1])) for place, _ in pauses]
    yield compare("fit.state", np.stack(got), exact(np.stack(expected)))
    yield from _judge_records(training, losses, replayed)


def _steps(
    session: Session, state: State, batches: Batches, order: list[np.ndarray]
) -> tuple[list[float], State]:
    """Make steps in several calls: half of those of one size, then all but one, then the last."""
    if not order:
        return [], state
    session.load(state)
    losses: list[float] = []
    for _, same in itertools.groupby(order, key=len):
        rows = np.stack(list(same))
        for part in np.split(rows, sorted({len(rows) // 2, len(rows) - 1})):
            if len(part):
                call = (batches.images, batches.labels, part)
                losses += attempt(STEPS_STAGES[0], lambda call=call: session.steps(*call)).tolist()
    return losses, attempt(STEPS_STAGES[1], session.export)


def _judge_edges(training: Training, session: Session, batches: Batches) -> Iterator[Comparison]:
    """Judge a step across all EDGES and the last, smaller one, against the oracle."""
    recipe, state = training.recipe, training.begin[1]
    count, size = len(training.data.train), recipe.batch_size
    stream = np.random.RandomState(recipe.seed % 2**32)
    edges = np.array([*reversed(EDGES), count - 1, count - 2])[:size]
    across = np.concatenate([edges, stream.randint(0, count, size - len(edges))])
    *_, last = training.batches(*(training.begin[0], 11 * training.steps))
    judged = batches._replace(order=[across, last])
    for step in (0, 1):
        for comparison in judge_plain_step(session, recipe, state, judged, step):
            stage = STEPS_STAGES[comparison.stage != "step.loss"]
            yield dataclasses.replace(comparison, stage=stage)


def _judge_records(
    training: Training, losses: list[float], states: dict[int, State]
) -> Iterator[Comparison]:
    """Compare what is reported of each epoch with the replay's losses and the oracle's figures.

    n losses may be summed in any order: that errs by n roundings of their sum at most.
    """
    start, steps, known = training.start, training.steps, []
    if start is not None:
        losses = [start.loss_sum, *([0.0] * start.batch)][: start.batch] + losses
        known = list(start.epochs)
    sums = [sum(losses[i : i + steps]) for i in range(0, len(losses), steps)]
    expected = np.array([*(record.loss for record in known), *sums])
    records = training.history.epochs
    bound = steps * np.finfo(np.float64).eps * expected
    yield compare("fit.losses", np.array([r.loss for r in records]), Expectation(expected, bound))
    ends = range(len(known) + 1, training.recipe.epochs + 1)
    figures = [_figures(states[epoch * steps], training) for epoch in ends]
    values, bounds = (np.array([f[i] for f in figures]) for i in (0, 1))
    got = np.array([(r.test_loss, r.test_accuracy) for r in records[len(known) :]])
    yield compare("fit.tests", got, Expectation(values, bounds))


def _figures(state: State, training: Training) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return test loss and accuracy of a state, and how near they must be."""
    loss, confusion = expected_figures(state, training.data.test)
    examples = len(training.data.test)
    rounding = float(np.finfo(np.float64).eps)
    return (
        (float(loss.value), np.trace(confusion.value) / examples),
        (float(loss.bound), np.trace(confusion.bound) / examples + rounding),
    )
