"""A third backend, as small as one can be: plain NumPy, in the recipe's precision."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from parity.contract.backend import Layer, Trace
from parity.contract.data.datasets import Dataset, Split, pixels, read_dataset
from parity.contract.recipe import DatasetName, Recipe
from parity.contract.run.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from parity.contract.run.history import Evaluation, History
from parity.contract.run.observers import SILENT, Observer
from parity.contract.run.progress import Progress
from parity.contract.state import State, initial_state
from parity.truth.stages import STAGES

read_native, write_native = read_checkpoint, write_checkpoint


class Session:
    def __init__(self, recipe: Recipe, state: State) -> None:
        self._recipe = recipe
        self.load(state)

    def load(self, state: State) -> None:
        self._state = state.astype(self._recipe.dtype)

    def export(self) -> State:
        return self._state.astype(self._recipe.dtype)

    def steps(self, images: np.ndarray, labels: np.ndarray, order: np.ndarray) -> np.ndarray:
        losses = [self.trace(images[batch], labels[batch])["loss"] for batch in order]
        return np.array(losses, dtype=np.float64)

    def trace(self, images: np.ndarray, labels: np.ndarray) -> Trace:
        p, x, rows = self._state.params, images[:, 0], np.arange(len(labels))
        shifts = [(i, j, x[:, i : i + 26, j : j + 26]) for i in range(3) for j in range(3)]
        conv1 = sum(
            p["conv1.weight"][:, 0, i, j][:, None, None] * part[:, None] for i, j, part in shifts
        )
        conv1 = conv1 + p["conv1.bias"][:, None, None]
        relu = np.maximum(conv1, 0)
        corners = np.stack([relu[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)])
        pool = corners.max(axis=0)
        flatten = pool.reshape(len(x), -1)
        logits = flatten @ p["fc1.weight"].T + p["fc1.bias"]
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        g = np.exp(shifted - log_sum)
        loss = (log_sum[:, 0] - shifted[rows, labels]).mean()
        g[rows, labels] -= 1
        g /= len(labels)
        pooled = (g @ p["fc1.weight"]).reshape(pool.shape)
        d = np.zeros_like(conv1)
        for k, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            d[:, :, i::2, j::2] = pooled * (corners.argmax(axis=0) == k) * (corners[k] > 0)
        weight = np.stack([np.einsum("bohw,bhw->o", d, part) for _, _, part in shifts], axis=1)
        gradients = {
            "conv1.weight": weight.reshape(16, 1, 3, 3),
            "conv1.bias": d.sum(axis=(0, 2, 3)),
            "fc1.weight": g.T @ flatten,
            "fc1.bias": g.sum(axis=0),
        }
        values = [conv1, relu, pool, flatten, logits, np.asarray(loss), g]
        trace = dict(zip(STAGES, values, strict=False))
        trace |= {f"grad.{name}": gradient for name, gradient in gradients.items()}
        self._state = self._adam(gradients)
        for group in ("adam_m", "adam_v", "params"):
            for name, array in getattr(self._state, group).items():
                trace[f"{group.replace('_', '.')}.{name}"] = array
        return {stage: np.array(trace[stage], dtype=self._recipe.dtype) for stage in STAGES}

    def _adam(self, gradients: dict[str, np.ndarray]) -> State:
        s, t = self._state, self._state.step + 1
        m = {n: s.adam_m[n] + 0.1 * (g - s.adam_m[n]) for n, g in gradients.items()}
        v = {n: 0.999 * s.adam_v[n] + 0.001 * (g * g) for n, g in gradients.items()}
        size = self._recipe.lr / (1 - 0.9**t)
        params = {
            n: p - size * m[n] / (np.sqrt(v[n] / (1 - 0.999**t)) + 1e-8)
            for n, p in s.params.items()
        }
        state = State(params=params, adam_m=m, adam_v=v, step=t)
        return state.astype(self._recipe.dtype)


@contextlib.contextmanager
def session(recipe: Recipe, state: State) -> Iterator[Session]:
    yield Session(recipe, state)


def load_dataset(name: DatasetName, data_dir: Path | None = None) -> Dataset:
    return read_dataset(name, data_dir)


def resolve(recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, device="cpu", mode="eager")


def versions() -> dict[str, str]:
    return {"numpy": np.__version__}


def environment(recipe: Recipe) -> dict[str, str | int | bool]:
    return {"device": "cpu"}


def fit(
    recipe: Recipe,
    *,
    dataset: Dataset | None = None,
    start: Checkpoint | None = None,
    observer: Observer = SILENT,
) -> History:
    data = (dataset or load_dataset(recipe.dataset, recipe.data_dir)).first(recipe.limit)
    images, labels = pixels(data.train.images, recipe.dtype), data.train.labels
    progress = Progress(recipe, data, start)
    training = Session(recipe, progress.start)
    for _ in range(progress.epoch, recipe.epochs + 1):
        for chunk in progress.chunks(observer.every):
            progress.add(training.steps(images, labels, chunk), training.export())
        test = evaluate(recipe, state=training.export(), split=data.test)
        progress.end_epoch(test, seconds=0.0)
    return History(recipe=recipe, epochs=progress.records, state=training.export())


def evaluate(
    recipe: Recipe, *, state: State | None = None, split: Split | None = None
) -> Evaluation:
    split = split or load_dataset(recipe.dataset, recipe.data_dir).test
    start = Session(recipe, state or initial_state(recipe.seed, recipe.dtype))
    trace = start.trace(pixels(split.images, recipe.dtype), split.labels)
    confusion = np.zeros((10, 10), dtype=np.int64)
    np.add.at(confusion, (split.labels, trace["logits"].argmax(axis=1)), 1)
    return Evaluation(loss=float(trace["loss"]), confusion=confusion)


def predict(recipe: Recipe, *, state: State, images: np.ndarray) -> np.ndarray:
    trace = Session(recipe, state).trace(
        pixels(images, recipe.dtype), np.zeros(len(images), dtype=np.int64)
    )
    exponentials = np.exp(trace["logits"] - trace["logits"].max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def summary() -> list[Layer]:
    return []
