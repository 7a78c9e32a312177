"""What one subject's computations are worth, judged against the oracle and against itself."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int64

from parity.contract.backend import Session
from parity.contract.batches import batches
from parity.contract.data.datasets import Dataset, Split, pixels
from parity.contract.errors import DataError, DeviceError, NondeterminismError
from parity.contract.recipe import DType, Recipe
from parity.contract.state import PARAMETERS, State, initial_state
from parity.judge.compare import Comparison, compare, misfit
from parity.subjects.subject import Subject
from parity.truth.propagation import STEP_STAGES, end_to_end
from parity.truth.reference import STAGES
from parity.truth.rounding import exact
from parity.truth.stages import expectations, stage_shapes

Judged = dict[str, Comparison]
"""By stage, in the order of the computation, as far as it could be judged."""

Result = TypeVar("Result")


def judge_data(loaded: Dataset, truth: Dataset) -> Comparison:
    """Compare a loaded data set with what its files hold: both splits, to the byte."""
    judged = []
    for got, expected in ((loaded.train, truth.train), (loaded.test, truth.test)):
        for a, b in ((got.images, expected.images), (got.labels, expected.labels)):
            if a.shape != b.shape or a.dtype != b.dtype:
                return misfit("data", f"is {a.dtype} {a.shape}, should be {b.dtype} {b.shape}")
            wrong = np.flatnonzero((a != b).reshape(len(a), -1).any(axis=1))
            shown = wrong if wrong.size else np.arange(1)
            worst = compare("data", a[shown], exact(b[shown]))
            place = (int(shown[worst.index[0]]), *worst.index[1:])
            judged.append(dataclasses.replace(worst, elements=a.size, index=place))
    return max(judged, key=badness)


def examine(subject: Subject, recipe: Recipe, split: Split, state: State) -> Judged:
    """Judge a subject's translation of states and the steps that it makes.

    Two steps from `state` on the first batches of `split`, the second of which has moments that are
    not zero, and one on coarse numbers, among which ties and zeros are common. If their stages
    agree, the same two steps as training makes them.

    Raises:
        NondeterminismError: the subject differs from itself.
        DeviceError: the device is not there.
    """
    dtype = subject.dtype(recipe)
    steps = [
        (pixels(split.images[batch], recipe.dtype), split.labels[batch])
        for batch in first_batches(recipe, len(split))
    ]
    sent = random_state(recipe.seed, dtype)
    judged: Judged = {}
    with contextlib.ExitStack() as stack:
        session = attempt("init", lambda: stack.enter_context(subject.session(recipe, sent)))
        if isinstance(session, Comparison):
            return {"init": session}
        returned = attempt("init", session.export)
        if isinstance(returned, Comparison):
            return {"init": returned}
        judged["init"] = _compare_states(returned, sent)
        attempt("init", lambda: session.step(*steps[0]))
        if not np.array_equal(numbers(sent), numbers(random_state(recipe.seed, dtype))):
            return {"init": misfit("init", "trains in the arrays that it was given, not in a copy")}
        _require_determinism(subject, session, state, *steps[0])
        coarse = coarse_batch(recipe.seed, recipe.batch_size, recipe.dtype)
        for start, chosen in (
            (state, steps),
            (coarse_state(recipe.seed, recipe.dtype), [coarse]),
        ):
            session.load(start)
            for batch in chosen:
                _merge(judged, judge_step(session, *batch, dtype=dtype, lr=recipe.lr))
        if all(comparison.agrees for comparison in judged.values()):
            session.load(state)
            for batch in steps:
                _merge(judged, judge_plain_step(session, *batch, dtype=dtype, lr=recipe.lr))
    return {stage: judged[stage] for stage in ("init", *STAGES, *STEP_STAGES) if stage in judged}


def first_batches(recipe: Recipe, examples: int) -> list[Int64[np.ndarray, "B"]]:
    """Return the indices of the images of the two steps that are judged."""
    order = batches(seed=recipe.seed, epoch=1, examples=examples, batch_size=recipe.batch_size)
    return list(itertools.islice(order, 2))


def judge_step(
    session: Session,
    images: Float[np.ndarray, "B 1 28 28"],
    labels: Int64[np.ndarray, "B"],
    *,
    dtype: DType,
    lr: float,
) -> Judged:
    """Make a traced step of a session, and judge every stage of it on the subject's own inputs.

    Structure comes before values: where a stage is missing or has another shape or dtype than it
    should, the stages before it are judged, and those after it are not.

    Args:
        session: stands at the state that the step starts from.
        images: the step's input.
        labels: likewise.
        dtype: the precision that the subject promises to compute in.
        lr: Adam's learning rate.
    """
    state = session.export().astype(dtype)
    trace = attempt(STAGES[0], lambda: session.trace(images, labels))
    if isinstance(trace, Comparison):
        return {STAGES[0]: trace}
    shapes, sound = stage_shapes(len(labels)), {}
    broken = None
    for stage in STAGES:
        got = trace.get(stage)
        if broken is None and (got is None or got.shape != shapes[stage] or got.dtype != dtype):
            is_ = "is missing" if got is None else f"is {got.dtype} {got.shape}"
            broken = misfit(stage, f"{is_}, should be {dtype} {shapes[stage]}")
        sound[stage] = np.zeros(shapes[stage]) if broken else got
    with np.errstate(all="ignore"):  # what is not finite is evidence
        expected = expectations(sound, state, images, labels, lr=lr)
    judged = {}
    for stage in STAGES:
        if broken is not None and broken.stage == stage:
            return judged | {stage: broken}
        judged[stage] = compare(stage, trace[stage], expected[stage])
    return judged


def judge_plain_step(
    session: Session,
    images: Float[np.ndarray, "B 1 28 28"],
    labels: Int64[np.ndarray, "B"],
    *,
    dtype: DType,
    lr: float,
) -> Judged:
    """Make the step that trains, and judge what it returns: loss, moments and parameters.

    Args: those of `judge_step`.
    """
    before = session.export().astype(dtype)
    made = attempt(STEP_STAGES[0], lambda: (session.step(images, labels), session.export()))
    if isinstance(made, Comparison):
        return {STEP_STAGES[0]: made}
    loss, after = made
    if after.dtype != dtype:
        mismatch = f"left the state as {after.dtype}, should be {dtype}"
        return {STEP_STAGES[0]: misfit(STEP_STAGES[0], mismatch)}
    got = {"step.loss": np.asarray(loss)}
    for group in ("adam_m", "adam_v", "params"):
        for name, array in getattr(after, group).items():
            got[f"step.{group.replace('_', '.')}.{name}"] = array
    with np.errstate(all="ignore"):
        expected = end_to_end(after, before, images, labels, lr=lr)
    return {stage: compare(stage, got[stage], expected[stage]) for stage in STEP_STAGES}


def badness(comparison: Comparison) -> tuple[bool, float]:
    """Order comparisons: agreeing ones before others, then by how near they are to their bound."""
    return not comparison.agrees, comparison.ratio


def attempt(stage: str, call: Callable[[], Result]) -> Result | Comparison:
    """Return what a subject's code returns; if it fails, that is the evidence against `stage`.

    Raises:
        DataError, DeviceError: it cannot be run here, whatever it is worth.
    """
    try:
        return call()
    except (DataError, DeviceError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a port may be raised by it
        reason = " ".join(str(error).split())
        return misfit(stage, f"is not delivered: {type(error).__name__}: {reason}")


def random_state(seed: int, dtype: DType) -> State:
    """Return a state of random numbers that use every bit of the precision."""
    stream = np.random.RandomState(seed % 2**32)
    params, adam_m, adam_v = (
        {name: stream.uniform(0.1, 1, p.shape).astype(dtype) for name, p in PARAMETERS.items()}
        for _ in range(3)
    )
    return State(params=params, adam_m=adam_m, adam_v=adam_v, step=7)


def coarse_state(seed: int, dtype: DType) -> State:
    """Return a state whose filters have weights and biases of -1/2, 0 and 1/2, and large logits.

    With the images of `coarse_batch`, the convolution is exact in any precision, many of its values
    are 0, and many windows of pooling hold their largest value twice: what ReLU's derivative is at
    0 and which of equals pooling passes on is seen here, and hardly ever on real images. Logits of
    some hundreds overflow a softmax that does not subtract their maximum.
    """
    stream = np.random.RandomState(seed % 2**32)
    state = initial_state(seed, dtype)
    for name in ("conv1.weight", "conv1.bias"):
        state.params[name][:] = stream.choice([-0.5, 0, 0.5], size=state.params[name].shape)
    state.params["fc1.weight"][:] *= 100
    for name, p in PARAMETERS.items():
        state.adam_m[name][:] = 1e-2 * stream.standard_normal(p.shape)
        state.adam_v[name][:] = 1e-4 * stream.uniform(size=p.shape)
    return dataclasses.replace(state, step=3)


def coarse_batch(
    seed: int, batch_size: int, dtype: DType
) -> tuple[Float[np.ndarray, "B 1 28 28"], Int64[np.ndarray, "B"]]:
    """Return images of 0, 1/2 and 1, and their labels."""
    stream = np.random.RandomState(seed % 2**32)
    images = stream.choice([0, 0.5, 1], size=(batch_size, 1, 28, 28)).astype(dtype)
    return images, stream.randint(0, 10, batch_size).astype(np.int64)


def numbers(state: State) -> Float[np.ndarray, "81631"]:
    """Return all numbers of a state in a row: parameters, first and second moments, step."""
    groups = (state.params, state.adam_m, state.adam_v)
    arrays = [group[name].ravel() for group in groups for name in PARAMETERS]
    return np.concatenate([*arrays, [state.step]])


def _merge(judged: Judged, more: Judged) -> None:
    """Keep the worse comparison of each stage."""
    for stage, comparison in more.items():
        judged[stage] = max(judged.get(stage, comparison), comparison, key=badness)


def _compare_states(returned: State, sent: State) -> Comparison:
    """Compare a state with what came back of it: dtype, then every bit."""
    if returned.dtype != sent.dtype:
        return misfit("init", f"came back as {returned.dtype}, was sent as {sent.dtype}")
    return compare("init", numbers(returned), exact(numbers(sent)))


def _require_determinism(
    subject: Subject, session: Session, state: State, images: np.ndarray, labels: np.ndarray
) -> None:
    """Raise NondeterminismError if the same step, traced or not, has two results."""
    results = []
    for _ in range(2):
        session.load(state)
        traced = attempt(STAGES[0], lambda: session.trace(images, labels))
        session.load(state)
        plain = attempt(
            STEP_STAGES[0],
            lambda: {"step": np.append(numbers(session.export()), session.step(images, labels))},
        )
        if isinstance(traced, Comparison) or isinstance(plain, Comparison):
            return  # it fails: the judged steps will say how
        results.append(traced | plain)
    for stage, first in results[0].items():
        if not np.array_equal(first, results[1][stage], equal_nan=True):
            raise NondeterminismError(
                f"{subject} is not deterministic: the same step gave two results from stage {stage}"
                " on, so there is no verdict; try one thread, or --device cpu"
            )
