"""Do two subjects compute the same training step? Stage by stage, against the oracle."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.compare import Comparison, compare
from parity.contract.backend import STAGES, Backend
from parity.contract.datasets import Split, pixels, read_dataset
from parity.contract.errors import StateError
from parity.contract.parameters import PARAMETERS, State, initial_state
from parity.contract.randomness import batches
from parity.contract.recipe import DatasetName, Device, DType, Recipe
from parity.subjects import Subject
from parity.tolerances import exact, expectations


@dataclass(frozen=True)
class Verdict:
    """What each subject's stages are worth; the first disagreement is where a bug is."""

    a: str
    b: str
    recipe: Recipe
    stages: dict[str, tuple[Comparison, Comparison]]
    """By stage, in the order of the computation: `a` and `b` against the oracle."""

    @property
    def first_disagreement(self) -> tuple[str, Comparison] | None:
        """The first stage that is outside its bound, and whose."""
        for pair in self.stages.values():
            for subject, comparison in zip((self.a, self.b), pair, strict=True):
                if not comparison.agrees:
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
    """Compare two subjects on the first batch of a training.

    The data sets and the translation of states must be exact; each stage of the step is judged on
    the subject's own inputs to it, against `parity.reference` and within `parity.tolerances`.

    Raises:
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
    examined = [_examine(subject, recipe) for subject in subjects]
    stages = {stage: (examined[0][stage], examined[1][stage]) for stage in examined[0]}
    return Verdict(str(subjects[0]), str(subjects[1]), recipe, stages)


def _cell(comparison: Comparison) -> str:
    if comparison.agrees:
        return "exact" if comparison.error == 0 else f"{comparison.ratio:.3f}"
    return f"{comparison.ratio:.3g} !"


def _examine(subject: Subject, recipe: Recipe) -> dict[str, Comparison]:
    """Judge one subject: its data, its translation of states, and the stages of one step."""
    backend = subject.load_backend()
    recipe = backend.resolve(dataclasses.replace(recipe, mode=subject.mode))
    loaded = backend.load_dataset(recipe.dataset, recipe.data_dir).train
    truth = read_dataset(recipe.dataset, recipe.data_dir).train
    batch = next(
        batches(seed=recipe.seed, epoch=1, examples=len(truth), batch_size=recipe.batch_size)
    )
    state = initial_state(recipe.seed, recipe.dtype)
    images, labels = pixels(truth.images[batch], recipe.dtype), truth.labels[batch]
    trace = backend.trace(recipe, state, images, labels)
    if tuple(trace) != STAGES:
        raise StateError(f"{subject}: expected the stages {STAGES}, got {tuple(trace)}")
    expected = expectations(trace, state, images, labels)
    return {
        "data": compare("data", _rows(loaded, batch), exact(_rows(truth, batch))),
        "init": _round_trip(backend, recipe),
        **{stage: compare(stage, trace[stage], expected[stage]) for stage in STAGES},
    }


def _rows(split: Split, batch: np.ndarray) -> np.ndarray:
    """Return a row an example: its pixels, then its label."""
    return np.column_stack([split.images[batch].reshape(len(batch), -1), split.labels[batch]])


def _round_trip(backend: Backend, recipe: Recipe) -> Comparison:
    """Translate a state whose every number is different to the backend and back."""
    numbers = iter(np.random.RandomState(recipe.seed).permutation(3 * 27_210).astype(recipe.dtype))

    def fill(shape: tuple[int, ...]) -> np.ndarray:
        return np.fromiter(numbers, dtype=recipe.dtype, count=math.prod(shape)).reshape(shape)

    params, adam_m, adam_v = (
        {name: fill(shape) for name, (shape, _) in PARAMETERS.items()} for _ in range(3)
    )
    state = State(params=params, adam_m=adam_m, adam_v=adam_v, step=7)
    with backend.computing(recipe):
        returned = backend.export_state(backend.import_state(state, recipe))
    return compare("init", _numbers(returned), exact(_numbers(state)))


def _numbers(state: State) -> np.ndarray:
    """Return all numbers of a state in a row."""
    groups = (state.params, state.adam_m, state.adam_v)
    arrays = [group[name].ravel() for group in groups for name in PARAMETERS]
    return np.concatenate([*arrays, [state.step]])


def _evidence(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values; a number that is not finite becomes null."""
    fields = dataclasses.asdict(comparison) | {"ratio": comparison.ratio}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }
