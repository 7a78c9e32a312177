"""Is the training loop the recipe's? A subject's own `fit`, made again from state to state.

It runs in the mode, kernel and precision that it trains in. Each stretch between two pauses is made
again from the state that it started in, by the same steps cut at other places, and must end in the
same state to the bit. Some steps are judged against the oracle, so that nothing is wrong in both.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from parity.contract.backend import Session
from parity.contract.batches import batch_count
from parity.contract.data.datasets import Dataset, Split, pixels
from parity.contract.recipe import Recipe
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.run.history import Epoch, History
from parity.contract.run.observers import Observer
from parity.contract.run.progress import Progress, chunk_size
from parity.contract.state import State, initial_state
from parity.judge.compare import Comparison, EvidenceError, Judged, attempt, compare, merge
from parity.judge.inference import FEW, IMAGES, expected_figures
from parity.judge.states import numbers, trained_state
from parity.judge.steps import Batches, judge_plain_step
from parity.subjects.subject import Subject
from parity.subjects.workers import threads_of
from parity.truth.rounding import Expectation, exact

STEPS_STAGES = ("steps.losses", "steps.state")
"""Many steps in one call: their losses; the state after them."""

FIT_STAGES = ("fit.losses", "fit.tests", "fit.state")
"""Each epoch's summed loss; each epoch's test loss and accuracy; the states at its pauses."""

EDGES = (127, 128, 255, 256, 32_767, 32_768)
"""Indices around what signed and unsigned integers of 8 and 16 bits hold."""

SMALLEST = 64
"""Images in a batch of the many short epochs, at most."""

SMALL = 8
"""Images in a batch of a full chunk, in which training makes as many steps as it ever does."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What `fit` is to train, from the recipe's initial state or a checkpoint on."""

    recipe: Recipe
    dataset: Dataset
    start: Checkpoint | None = None

    @property
    def data(self) -> Dataset:
        """What the recipe's limit leaves of the data set."""
        return self.dataset.first(self.recipe.limit)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return batch_count(len(self.data.train), self.recipe.batch_size)

    @property
    def begin(self) -> tuple[int, State]:
        """Number of batches, from the first epoch on, that come before; the state after them."""
        if self.start is None:
            return 0, initial_state(self.recipe.seed, self.recipe.dtype)
        return (self.start.epoch - 1) * self.steps + self.start.batch, self.start.state

    def batches(self, begin: int, end: int) -> Iterator[np.ndarray]:
        """Yield the indices of some batches, counted from the first epoch on."""
        for epoch in range(begin // self.steps, -(-end // self.steps)):
            first = epoch * self.steps
            order = self.recipe.batches(epoch + 1, len(self.data.train))
            yield from itertools.islice(order, max(0, begin - first), end - first)


def short_epochs(recipe: Recipe, dataset: Dataset, processes: int = 1) -> Training:
    """Return a training of as many epochs as by default, of two batches each.

    A third one is left over by the recipe's limit. Of several processes it has so few images that
    their shares are unequal.
    """
    size = min(SMALLEST, recipe.batch_size, len(dataset.train) // 3)
    limit = 2 * size if processes == 1 else 2 * size + min(size, processes + 1)
    recipe = dataclasses.replace(recipe, epochs=Recipe().epochs, batch_size=size, limit=limit)
    return Training(recipe=recipe, dataset=_taken(dataset, np.arange(3 * size)))


def epoch_end(subject: Subject, recipe: Recipe, dataset: Dataset) -> Training:
    """Return the end of a last epoch: a full chunk of batches, a single one, and a smaller one.

    Learning rate, seed and epochs are no default; the images are more than 16 bits count.
    """
    recipe = dataclasses.replace(
        recipe, epochs=11, lr=2 * recipe.lr, seed=recipe.seed + 1, batch_size=SMALL
    )
    chunk = chunk_size(subject.resolve(recipe))
    done = EDGES[-1] // (chunk * SMALL) * chunk
    images = (done + chunk + 1) * SMALL + SMALL // 2
    step = (recipe.epochs - 1) * batch_count(images, SMALL) + done
    before = Epoch(epoch=1, loss=1.0, test_loss=1.0, test_accuracy=0.5, seconds=0.0)
    start = Checkpoint(
        recipe=recipe,
        dataset_sha256=None,
        state=trained_state(recipe.seed, recipe.dtype, step=step),
        epoch=recipe.epochs,
        batch=done,
        loss_sum=1.0 if done else 0.0,
        epochs=tuple(dataclasses.replace(before, epoch=i) for i in range(1, recipe.epochs)),
        backend="parity",
        versions={},
    )
    turns = np.arange(images) % len(dataset.train)
    return Training(recipe=recipe, dataset=_taken(dataset, turns), start=start)


def _taken(dataset: Dataset, chosen: np.ndarray) -> Dataset:
    """Return a data set of some training images, and of few test images."""
    train, test = dataset.train, dataset.test
    return Dataset(
        dataset.name,
        Split(train.images[chosen], train.labels[chosen]),
        Split(test.images[:FEW], test.labels[:FEW]),
    )


class _Recorder(Observer):
    """Keeps the states at which a training pauses."""

    def __init__(self) -> None:
        self.pauses: list[tuple[int, State]] = []

    def paused(self, progress: Progress, state: State) -> None:
        self.pauses.append(((progress.epoch - 1) * progress.steps + progress.batch, state))


def judge_loop(subject: Subject, training: Training) -> Judged:
    """Judge a run of `fit`: STEPS_STAGES, if it continues from a checkpoint, and FIT_STAGES."""
    recipe, dataset, start = training.recipe, training.dataset, training.start
    judged: Judged = {}
    recorder = _Recorder()
    try:
        history = attempt(
            FIT_STAGES[0], lambda: subject.fit(recipe, dataset, start=start, observer=recorder)
        )
        pauses = [*recorder.pauses, (recipe.epochs * training.steps, history.state)]
        own = dataclasses.replace(training, recipe=subject.resolve(recipe))
        with subject.session(recipe, own.begin[1]) as session:
            merge(judged, *_judge_replay(own, history, pauses, session))
    except EvidenceError as error:
        merge(judged, error.comparison)
    return {stage: judged[stage] for stage in (*STEPS_STAGES, *FIT_STAGES) if stage in judged}


def _judge_replay(
    training: Training, history: History, pauses: list[tuple[int, State]], session: Session
) -> Iterator[Comparison]:
    """Make a training again, stretch by stretch, and compare."""
    train, (begin, state) = training.data.train, training.begin
    batches = Batches(pixels(train.images, training.recipe.dtype), train.labels, [])
    ends = range(training.steps, training.recipe.epochs * training.steps + 1, training.steps)
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
    yield from _judge_records(training, history, losses, replayed)


def _steps(
    session: Session, state: State, batches: Batches, order: list[np.ndarray]
) -> tuple[list[float], State]:
    """Make those of one size in four calls: a quarter, half, the rest but one, and the last."""
    session.load(state)
    losses: list[float] = []
    for _, same in itertools.groupby(order, key=len):
        rows = np.stack(list(same))
        for part in np.split(rows, sorted({len(rows) // 4, 3 * len(rows) // 4, len(rows) - 1})):
            if len(part):
                call = (batches.images, batches.labels, part)
                losses += attempt(STEPS_STAGES[0], lambda call=call: session.steps(*call)).tolist()
    return losses, attempt(STEPS_STAGES[1], session.export)


def _judge_edges(training: Training, session: Session, batches: Batches) -> Iterator[Comparison]:
    """Judge a step across all EDGES and the last, smaller one, against the oracle."""
    recipe, (begin, state) = training.recipe, training.begin
    count, size = len(batches.labels), recipe.batch_size
    stream = np.random.RandomState(recipe.seed % 2**32)
    edges = np.array([*reversed(EDGES), count - 1, count - 2])[:size]
    across = np.concatenate([edges, stream.randint(0, count, size - len(edges))])
    *_, last = training.batches(begin, recipe.epochs * training.steps)
    judged = batches._replace(order=[across, last])
    for step in (0, 1):
        for comparison in judge_plain_step(session, recipe, state, judged, step):
            stage = STEPS_STAGES[comparison.stage != "step.loss"]
            yield dataclasses.replace(comparison, stage=stage)


def _judge_records(
    training: Training, history: History, losses: list[float], states: dict[int, State]
) -> Iterator[Comparison]:
    """Compare what is reported of each epoch with the replay's losses and the oracle's figures.

    n losses may be summed in any order: that errs by n roundings of their sum at most.
    """
    start, steps, eps, known = training.start, training.steps, np.finfo(np.float64).eps, []
    if start is not None:
        losses = [start.loss_sum, *([0.0] * start.batch)][: start.batch] + losses
        known = [record.loss for record in start.epochs]
    sums = [sum(losses[i : i + steps]) for i in range(0, len(losses), steps)]
    expected = np.array([*known, *sums])
    got = np.array([record.loss for record in history.epochs])
    yield compare("fit.losses", got, Expectation(expected, steps * eps * expected))
    test = training.dataset.test
    ends = range(len(known) + 1, training.recipe.epochs + 1)
    figures = [expected_figures(states[epoch * steps], test) for epoch in ends]
    value = [(loss.value, np.trace(matrix.value) / len(test)) for loss, matrix in figures]
    bound = [(loss.bound, np.trace(matrix.bound) / len(test) + eps) for loss, matrix in figures]
    got = np.array([(r.test_loss, r.test_accuracy) for r in history.epochs[len(known) :]])
    yield compare("fit.tests", got, Expectation(np.array(value), np.array(bound)))


def covered(subject: Subject, recipe: Recipe, judged: Judged) -> str:
    """Return in words what was judged of a subject."""
    said = [f"single steps in {subject.resolve(recipe).dtype}, batches of {recipe.batch_size}"]
    if "predict" in judged:
        said.append(f"evaluating and predicting {IMAGES} images, the last batch of {FEW}")
    if (count := subject.processes) > 1:
        said[0] += f", of {count + 1} and of 1, by what {count} processes return"
        said.append(f"{Recipe().epochs} epochs of `fit`; threads of each: {threads_of(count)}")
    elif FIT_STAGES[-1] in judged:
        chunk = chunk_size(subject.resolve(dataclasses.replace(recipe, batch_size=SMALL)))
        said += [
            f"`fit` for {Recipe().epochs} epochs of two batches",
            f"the end of an epoch of over {EDGES[-1]:,} images, many steps in one call:"
            f" {chunk} steps of {SMALL} images, one more, and one of fewer, with images whose"
            f" numbers lie around {', '.join(f'{edge:,}' for edge in EDGES[1::2])}",
        ]
    return "; ".join(said)
