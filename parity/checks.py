"""Do two subjects compute the same training step? Stage by stage, against the oracle."""

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from parity.compare import Comparison, compare, json_values, misfit
from parity.contract.backend import STAGES, Session
from parity.contract.datasets import Split, pixels, read_dataset
from parity.contract.errors import NondeterminismError, StateError
from parity.contract.parameters import PARAMETERS, State, initial_state
from parity.contract.randomness import batches
from parity.contract.recipe import DatasetName, Device, DType, Recipe
from parity.subjects import Subject
from parity.tolerances import exact, expectations, stage_shapes


@dataclass(frozen=True)
class Verdict:
    """What each subject's stages are worth; the first disagreement is where a bug is."""

    a: str
    b: str
    recipe: Recipe
    stages: dict[str, tuple[Comparison | None, Comparison | None]]
    """By stage, in the order of the computation: `a` and `b` against the oracle.

    None after a stage of the wrong shape or dtype, from which no later one can be judged.
    """
    ran: tuple[Recipe, Recipe]
    """The recipe of each with device and mode as they were used."""

    @property
    def first_disagreement(self) -> tuple[str, Comparison] | None:
        """The first stage that is outside its bound, and whose."""
        for pair in self.stages.values():
            for subject, comparison in zip((self.a, self.b), pair, strict=True):
                if comparison is not None and not comparison.agrees:
                    return subject, comparison
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
        lines = [f"{'stage':<20}{self.a:>16}{self.b:>16}   worst error / its bound"]
        for stage, pair in self.stages.items():
            cells = "".join(f"{_cell(comparison):>16}" for comparison in pair)
            lines.append(f"{stage:<20}{cells}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        first = self.first_disagreement
        return {
            "schema": 1,
            "agrees": self.agrees,
            "verdict": str(self),
            "first_disagreement": first and {"subject": first[0], "stage": first[1].stage},
            "a": self.a,
            "b": self.b,
            "recipe": self.recipe.to_json(),
            "ran": {
                key: {"device": recipe.device, "mode": recipe.mode}
                for key, recipe in zip("ab", self.ran, strict=True)
            },
            "stages": {
                stage: {"a": _evidence(pair[0]), "b": _evidence(pair[1])}
                for stage, pair in self.stages.items()
            },
        }


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
) -> Verdict:
    """Compare two subjects on the first two steps of a training.

    The data sets and the translation of states must be exact; each stage of a step is judged on
    the subject's own inputs to it, against `parity.reference` and within `parity.tolerances`. The
    second step has moments that are not zero.

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
    ran = subjects[0].resolve(recipe), subjects[1].resolve(recipe)
    loaded = [subject.load_dataset(recipe).train for subject in subjects]
    truth = read_dataset(recipe.dataset, recipe.data_dir).train
    examined = [
        _examine(subject, recipe, split, truth)
        for subject, split in zip(subjects, loaded, strict=True)
    ]
    stages = {
        stage: (examined[0].get(stage), examined[1].get(stage))
        for stage in ("data", "init", *STAGES)
    }
    return Verdict(a, b, recipe, stages, ran)


def _cell(comparison: Comparison | None) -> str:
    if comparison is None:
        return "-"
    if comparison.agrees:
        return "exact" if comparison.error == 0 else f"{comparison.ratio:.3f}"
    return "wrong" if comparison.mismatch else f"{comparison.ratio:.3g} !"


def judge_step(
    session: Session,
    state: State,
    images: Float[np.ndarray, "B 1 28 28"],
    labels: Int64[np.ndarray, "B"],
    *,
    dtype: DType,
    lr: float,
) -> dict[str, Comparison]:
    """Make a traced step of a session that stands at `state`, and judge every stage of it.

    Structure comes before values: where a stage has another shape or dtype than it should, the
    stages before it are judged, and those after it are not.

    Raises:
        StateError: the session traces other stages than it should.
    """
    trace = session.trace(images, labels)
    if tuple(trace) != STAGES:
        raise StateError(f"expected the stages {STAGES}, got {tuple(trace)}")
    shapes, sound = stage_shapes(len(labels)), {}
    broken = None
    for stage, got in trace.items():
        if broken is None and (got.shape != shapes[stage] or got.dtype != dtype):
            broken = misfit(stage, f"is {got.dtype} {got.shape}, should be {dtype} {shapes[stage]}")
        sound[stage] = got if broken is None else np.zeros(shapes[stage])
    expected = expectations(sound, state.astype(dtype), images, labels, lr=lr)
    judged = {}
    for stage in STAGES:
        if broken is not None and broken.stage == stage:
            return judged | {stage: broken}
        judged[stage] = compare(stage, trace[stage], expected[stage])
    return judged


def worse(a: Comparison, b: Comparison) -> Comparison:
    """Return the one that disagrees, else the one nearer to its bound."""
    return max(a, b, key=lambda comparison: (not comparison.agrees, comparison.ratio))


def _examine(
    subject: Subject, recipe: Recipe, loaded: Split, truth: Split
) -> dict[str, Comparison]:
    """Judge one subject: its data, its translation of states, and the stages of two steps."""
    order = batches(seed=recipe.seed, epoch=1, examples=len(truth), batch_size=recipe.batch_size)
    chosen = list(itertools.islice(order, 2))
    dtype = subject.dtype(recipe)
    state, probe = initial_state(recipe.seed, recipe.dtype), _probe(recipe.seed, dtype)
    stages = {"data": compare("data", _rows(loaded, chosen), exact(_rows(truth, chosen)))}
    with subject.session(recipe, probe) as session:
        stages["init"] = _round_trip(session.export(), probe)
        first = pixels(truth.images[chosen[0]], recipe.dtype), truth.labels[chosen[0]]
        _require_determinism(subject, session, state, *first)
        session.load(state)
        for batch in chosen:
            before = session.export()
            images, labels = pixels(truth.images[batch], recipe.dtype), truth.labels[batch]
            judged = judge_step(session, before, images, labels, dtype=dtype, lr=recipe.lr)
            for stage, comparison in judged.items():
                stages[stage] = worse(stages.get(stage, comparison), comparison)
    return stages


def _require_determinism(
    subject: Subject, session: Session, state: State, images: np.ndarray, labels: np.ndarray
) -> None:
    """Raise NondeterminismError if the same step has two results."""
    traces = []
    for _ in range(2):
        session.load(state)
        traces.append(session.trace(images, labels))
    for stage, first in traces[0].items():
        if not np.array_equal(first, traces[1][stage], equal_nan=True):
            raise NondeterminismError(
                f"{subject} is not deterministic: the same step gave two results from stage {stage}"
                " on, so there is no verdict; try one thread, or --device cpu"
            )


def _rows(split: Split, chosen: list[np.ndarray]) -> np.ndarray:
    """Return a row an example: its pixels, then its label."""
    indices = np.concatenate(chosen)
    return np.column_stack([split.images[indices].reshape(len(indices), -1), split.labels[indices]])


def _probe(seed: int, dtype: DType) -> State:
    """Return a state of random numbers that use every bit of the precision."""
    stream = np.random.RandomState(seed % 2**32)
    params, adam_m, adam_v = (
        {name: stream.standard_normal(p.shape).astype(dtype) for name, p in PARAMETERS.items()}
        for _ in range(3)
    )
    return State(params=params, adam_m=adam_m, adam_v=adam_v, step=7)


def _round_trip(returned: State, sent: State) -> Comparison:
    """Compare a state with what came back of it: dtype, then every bit."""
    if returned.dtype != sent.dtype:
        return misfit("init", f"came back as {returned.dtype}, was sent as {sent.dtype}")
    return compare("init", _numbers(returned), exact(_numbers(sent)))


def _numbers(state: State) -> np.ndarray:
    """Return all numbers of a state in a row."""
    groups = (state.params, state.adam_m, state.adam_v)
    arrays = [group[name].ravel() for group in groups for name in PARAMETERS]
    return np.concatenate([*arrays, [state.step]])


def _evidence(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    return json_values(dataclasses.asdict(comparison) | {"ratio": comparison.ratio})
