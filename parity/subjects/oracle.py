"""The oracle as a backend like any other: it steps, evaluates and predicts in NumPy float64."""

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8

from parity.contract.backend import Images, Labels, Losses, Order, Session, Trace
from parity.contract.data.datasets import Split, pixels, read_dataset
from parity.contract.recipe import Recipe
from parity.contract.run.history import Evaluation
from parity.contract.state import State, initial_state
from parity.truth import reference, stages

load_dataset = read_dataset

_AT_ONCE = 500
"""Images whose activations are in memory at a time."""


def resolve(recipe: Recipe) -> Recipe:
    """Return the recipe as it is computed: on the CPU, layer by layer, in float64."""
    return dataclasses.replace(recipe, device="cpu", mode="eager", kernel="layers", dtype="float64")


def environment(_: Recipe) -> dict[str, str | int | bool]:
    """Return nothing: NumPy's version is one of the machine's facts."""
    return {}


class OracleSession(Session):
    """A training by `parity.truth.stages`, in float64 whatever the recipe says."""

    def __init__(self, recipe: Recipe, state: State) -> None:
        self._lr = recipe.lr
        self.load(state)

    def steps(self, images: Images, labels: Labels, order: Order) -> Losses:
        return np.array([self.trace(images[batch], labels[batch])["loss"] for batch in order])

    def trace(self, images: Images, labels: Labels) -> Trace:
        trace = stages.trace(self._state, images, labels, lr=self._lr)
        self._state = stages.after(trace, self._state.step + 1)
        return trace

    def export(self) -> State:
        return self._state.astype("float64")

    def load(self, state: State) -> None:
        self._state = state.astype("float64")


@contextlib.contextmanager
def session(recipe: Recipe, state: State) -> Iterator[OracleSession]:
    """Open a training at `state`."""
    yield OracleSession(recipe, state)


def evaluate(
    recipe: Recipe, *, state: State | None = None, split: Split | None = None
) -> Evaluation:
    """Evaluate a state, by default the recipe's initial one, on the test images or `split`."""
    split = split or load_dataset(recipe.dataset, recipe.data_dir).test
    logits = _logits(state or initial_state(recipe.seed), split.images)
    confusion = np.zeros((10, 10), dtype=np.int64)
    np.add.at(confusion, (split.labels, logits.argmax(axis=1)), 1)
    return Evaluation(loss=reference.loss(logits, split.labels), confusion=confusion)


def predict(
    _: Recipe, *, state: State, images: UInt8[np.ndarray, "images 28 28"]
) -> Float[np.ndarray, "images 10"]:
    """Return the probability of each digit for each image."""
    return np.exp(reference.log_softmax(_logits(state, images)))


def _logits(state: State, images: np.ndarray) -> np.ndarray:
    p, parts = state.astype("float64").params, [np.zeros((0, 10))]
    for start in range(0, len(images), _AT_ONCE):
        batch = pixels(images[start : start + _AT_ONCE], "float64")
        maps = reference.relu(reference.conv1(batch, p["conv1.weight"], p["conv1.bias"]))
        flat = reference.flatten(reference.pool(maps))
        parts.append(reference.fc1(flat, p["fc1.weight"], p["fc1.bias"]))
    return np.concatenate(parts)
