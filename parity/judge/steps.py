"""What one subject's steps are worth, judged against the oracle and against itself."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from parity.contract.backend import Images, Labels, Session, Trace
from parity.contract.data.datasets import Split, pixels
from parity.contract.errors import NondeterminismError
from parity.contract.recipe import Recipe
from parity.contract.state import State
from parity.judge.compare import Comparison, EvidenceError, Judged, attempt, compare, merge, refuse
from parity.judge.states import coarse_batch, coarse_state, numbers, random_state
from parity.subjects.subject import Subject
from parity.truth.propagation import STEP_STAGES, end_to_end
from parity.truth.rounding import exact
from parity.truth.stages import STAGES, expectations


class Batches(NamedTuple):
    """Images in memory, and which of them each step is made on."""

    images: Float[np.ndarray, "N 1 28 28"]
    labels: Int64[np.ndarray, "N"]
    order: list[Int64[np.ndarray, "B"]]
    """Indices of each step's images."""

    def of(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the images and labels of a step."""
        return self.images[self.order[step]], self.labels[self.order[step]]


def examine(subject: Subject, recipe: Recipe, split: Split, state: State) -> Judged:
    """Judge a subject's translation of states and its steps, unless it differs from itself."""
    judged: Judged = {}
    own, batches = subject.resolve(recipe), first_batches(recipe, split)
    sent = random_state(recipe.seed, own.dtype)
    try:
        with contextlib.ExitStack() as stack:
            session = attempt("init", lambda: stack.enter_context(subject.session(recipe, sent)))
            judged["init"] = _translation(session, own, sent, batches)
            if subject.processes > 1:
                return judged | judge_together(session, own, state, batches, subject.processes)
            _require_determinism(subject, session, state, batches)
            judged |= judge_steps(session, own, state, batches)
    except EvidenceError as error:
        merge(judged, error.comparison)
    return {stage: judged[stage] for stage in ("init", *STAGES, *STEP_STAGES) if stage in judged}


def first_order(recipe: Recipe, examples: int) -> list[Int64[np.ndarray, "B"]]:
    """Return the indices of the images of a training's first two steps."""
    return list(itertools.islice(recipe.batches(1, examples), 2))


def first_batches(recipe: Recipe, split: Split) -> Batches:
    """Return the images of a training's first two steps, the second one's first."""
    order = first_order(recipe, len(split))[::-1]
    chosen, ends = np.concatenate(order), np.cumsum([len(batch) for batch in order])
    places = np.split(np.arange(len(chosen)), ends[:-1])[::-1]
    return Batches(pixels(split.images[chosen], recipe.dtype), split.labels[chosen], places)


def _translation(session: Session, recipe: Recipe, sent: State, batches: Batches) -> Comparison:
    """Require that a state comes back to the bit, and that training leaves the caller's alone.

    The session is at `sent`, which is `random_state` of the recipe's seed and precision.
    """
    returned, same = attempt("init", session.export), random_state(recipe.seed, recipe.dtype)
    if returned.dtype != recipe.dtype:
        refuse("init", f"came back as {returned.dtype}, was sent as {recipe.dtype}")
    with contextlib.suppress(EvidenceError):  # it fails: the judged steps will say how
        attempt("init", lambda: session.steps(*batches[:2], batches.order[0][None]))
    if not np.array_equal(numbers(sent), numbers(same)):
        refuse("init", "trains in the arrays that it was given, not in a copy")
    return compare("init", numbers(returned), exact(numbers(same)))


def judge_steps(session: Session, recipe: Recipe, state: State, batches: Batches) -> Judged:
    """Judge the steps that a session makes, those that show their stages and those that train.

    The second of two traced steps from `state`, whose moments are not zero, and one on coarse
    numbers, among which ties and zeros are common. If their stages agree, the first step as
    training makes it. If there is one batch only, it is taken twice.
    """
    session.load(state)
    attempt(STAGES[0], lambda: session.trace(*batches.of(0)))
    judged = {found.stage: found for found in judge_step(session, recipe, *batches.of(-1))}
    session.load(coarse_state(recipe.seed, recipe.dtype))
    coarse = coarse_batch(recipe.seed, len(batches.order[0]), recipe.dtype)
    merge(judged, *judge_step(session, recipe, *coarse))
    if all(comparison.agrees for comparison in judged.values()):
        merge(judged, *judge_plain_step(session, recipe, state, batches, 0))
    return judged


def judge_together(
    session: Session, recipe: Recipe, state: State, batches: Batches, processes: int
) -> Judged:
    """Judge steps of several processes by what they return: they show no stages.

    One on a whole batch, one whose shares are unequal, and one of an image that one process has.
    """
    whole, judged = batches.order[0], {}
    own = batches._replace(order=[whole, whole[: processes + 1], whole[:1]])
    for step in range(len(own.order)):
        merge(judged, *judge_plain_step(session, recipe, state, own, step))
    return judged


def judge_step(
    session: Session, recipe: Recipe, images: Images, labels: Labels
) -> Iterator[Comparison]:
    """Make a traced step of a session, and judge every stage of it on the subject's own inputs.

    After a stage that is missing or not of the shape, or the precision, that it should be, none is
    judged.
    """
    state = session.export().astype(recipe.dtype)
    try:
        trace = attempt(STAGES[0], lambda: session.trace(images, labels))
    except EvidenceError as error:
        yield error.comparison
        return
    with np.errstate(all="ignore"):  # what is not finite is evidence
        for stage, expected in expectations(trace, state, images, labels, lr=recipe.lr):
            got, shape = trace.get(stage), expected.value.shape
            if got is None or got.shape != shape or got.dtype != recipe.dtype:
                is_ = "is missing" if got is None else f"is {got.dtype} {got.shape}"
                yield Comparison(stage=stage, mismatch=f"{is_}, should be {recipe.dtype} {shape}")
                return
            yield compare(stage, got, expected)


def judge_plain_step(
    session: Session, recipe: Recipe, state: State, batches: Batches, step: int
) -> list[Comparison]:
    """Make one of the steps that train, from `state`; judge loss, moments and parameters."""
    try:
        got = attempt(STEP_STAGES[0], lambda: plain_step(session, state, batches, step))
        after = session.export()
        if after.dtype != recipe.dtype:
            refuse(STEP_STAGES[0], f"left the state as {after.dtype}, should be {recipe.dtype}")
    except EvidenceError as error:
        return [error.comparison]
    start = state.astype(recipe.dtype)
    with np.errstate(all="ignore"):
        expected = end_to_end(after, start, *batches.of(step), lr=recipe.lr)
    return [compare(stage, got[stage], expected[stage]) for stage in STEP_STAGES]


def plain_step(session: Session, state: State, batches: Batches, step: int) -> Trace:
    """Make one of the steps that train, from `state`; return the loss and the state after it."""
    session.load(state)
    losses = session.steps(batches.images, batches.labels, batches.order[step][None])
    values = {"loss": np.asarray(losses[-1]), **session.export().named()}
    return {stage: values[stage.removeprefix("step.")] for stage in STEP_STAGES}


def _require_determinism(
    subject: Subject, session: Session, state: State, batches: Batches
) -> None:
    """Raise NondeterminismError if the same step, traced or not, has two results."""

    def compute() -> Trace:
        session.load(state)
        return session.trace(*batches.of(0)) | plain_step(session, state, batches, 0)

    with contextlib.suppress(EvidenceError):  # it fails: the judged steps will say how
        if found := attempt(STAGES[0], lambda: difference(compute(), compute())):
            raise NondeterminismError(
                f"{subject} is not deterministic: the same step gave two results, first in stage"
                f" {found.stage}, so there is no verdict; try one thread, or --device cpu"
            )


class Difference(NamedTuple):
    """How two outcomes of the same computation differ."""

    stage: str
    """The first stage that differs in a bit."""
    largest: float
    """Largest difference in it, as a fraction of its largest absolute value."""
    params: float
    """Largest difference of a parameter, as a fraction of the largest in its array."""

    def __str__(self) -> str:
        params = f"parameters by {self.params:.1e} of scale" if self.params else "no parameter"
        return f"first in {self.stage} (by {self.largest:.1e} of its scale), {params}"


class Repetition(NamedTuple):
    """How often a computation gave which result."""

    runs: int
    distinct: int
    """Different results, bit for bit; 1 for a deterministic computation."""
    difference: Difference | None
    """Of the run that differs earliest from the first, and by most; None if all are the same."""


def repeat(
    compute: Callable[[], Trace], *, runs: int, progress: Callable[[int], object] = int
) -> tuple[Trace, Repetition]:
    """Compute the same `runs` times; return the first outcome, and how many differ.

    `progress` is called after each run with its number.
    """
    seen: dict[bytes, Trace] = {}
    for run in range(1, runs + 1):
        outcome = compute()
        seen.setdefault(b"".join(array.tobytes() for array in outcome.values()), outcome)
        progress(run)
    first, *others = seen.values()
    differences = filter(None, (difference(first, other) for other in others))
    order = list(first)
    earliest = min(differences, key=lambda d: (order.index(d.stage), -d.largest), default=None)
    return first, Repetition(runs, len(seen), earliest)


def difference(a: Trace, b: Trace) -> Difference | None:
    """Return how two outcomes differ; None where they are the same to the bit."""
    stage = next((stage for stage in a if a[stage].tobytes() != b[stage].tobytes()), None)
    if stage is None:
        return None
    params = [_of_scale(a[name], b[name]) for name in a if "params." in name]
    return Difference(stage, _of_scale(a[stage], b[stage]), float(np.max(params)))


def _of_scale(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference over the largest value; NaN where one is not finite."""
    scale = max(np.abs(a).max(), np.abs(b).max())
    with np.errstate(invalid="ignore"):
        return float(np.abs(a - b).max() / scale) if scale else 0.0
