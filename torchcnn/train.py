"""The training loop."""

import functools
import time

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from parity.contract.cli.console import watching
from parity.contract.data.arrays import grey_values, of_kind
from parity.contract.data.datasets import Dataset, Split, pixels
from parity.contract.group import facts
from parity.contract.harness import ManySteps
from parity.contract.recipe import Recipe
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.run.history import Evaluation, History
from parity.contract.run.observers import SILENT, Observer
from parity.contract.run.progress import Progress
from parity.contract.state import State, initial_state
from torchcnn.data import load_dataset
from torchcnn.device import computing, resolve, to_device, to_host, versions
from torchcnn.loops import compiled
from torchcnn.parallel import group, share_count
from torchcnn.shares import share_metrics, training_steps
from torchcnn.state import TrainState, export_state, import_state
from torchcnn.steps import eval_step, predict_step

EVAL_BATCH = 250
"""Test images in an evaluation step."""


def fit(
    recipe: Recipe,
    *,
    dataset: Dataset | None = None,
    start: Checkpoint | None = None,
    observer: Observer | None = None,
) -> History:
    """Train from the recipe's initial state, or on from `start`, and evaluate after each epoch.

    Without an `observer`, a terminal or a notebook shows each epoch; `SILENT` shows nothing.
    In the block of `joined` all of its processes train together, and see the same observations.

    Raises:
        DataError, DeviceError: data set or device is not there; `dataset` is no `Dataset`.
        RecipeError: a batch has fewer images than there are processes, or devices.
        ProcessError: another process is to train something else.
        CheckpointError: `start` is of another training, or of other images.
        DivergenceError: a loss or a weight is not finite; names the step.
    """
    recipe = resolve(recipe)
    share_count(recipe)
    load = functools.partial(load_dataset, recipe.dataset, recipe.data_dir)
    loaded = group().in_turn(load) if dataset is None else dataset
    dataset = of_kind(loaded, Dataset, "dataset").first(recipe.limit)
    progress = Progress(recipe, dataset, start)
    group().require_same(lambda: progress.facts | facts(recipe, "torchcnn", versions()))
    with computing(recipe), watching(observer, recipe, group()) as observer:
        state = import_state(progress.start, recipe)
        train, test = (on_device(split, recipe) for split in (dataset.train, dataset.test))
        steps = training_steps(recipe)
        observer.start("torchcnn", recipe, dataset)
        observer.paused(progress, progress.start)
        for _ in range(progress.epoch, recipe.epochs + 1):
            started = time.perf_counter()
            state = train_epoch(state, train, steps, progress, observer)
            seconds = time.perf_counter() - started
            result = evaluate_split(state, *test, recipe)
            observer.epoch(progress.end_epoch(result, seconds=seconds))
            observer.paused(progress, export_state(state))
        return History(recipe=recipe, epochs=progress.records, state=export_state(state))


def train_epoch(
    state: TrainState,
    data: tuple[Tensor, Tensor],
    steps: ManySteps,
    progress: Progress,
    observer: Observer = SILENT,
) -> TrainState:
    """Make the steps that are left of the present epoch; within `computing`."""
    for chunk in progress.chunks(observer.every):
        state, losses = steps(state, *data, chunk)
        exported = export_state(state)
        progress.add(losses, exported)
        observer.paused(progress, exported)
    return state


def evaluate(
    recipe: Recipe, *, state: State | None = None, split: Split | None = None
) -> Evaluation:
    """Evaluate a state, by default the initial one, on a split, by default the test images.

    It raises DataError, DeviceError, or StateError for another dtype than the recipe's.
    """
    recipe = resolve(recipe)
    if split is None:
        split = load_dataset(recipe.dataset, recipe.data_dir).test
    split = of_kind(split, Split, "split")
    with computing(recipe):
        native = import_state(state or initial_state(recipe.seed, recipe.dtype), recipe)
        return evaluate_split(native, *on_device(split, recipe), recipe)


def predict(
    recipe: Recipe, *, state: State, images: UInt8[np.ndarray, "images 28 28"]
) -> Float[np.ndarray, "images 10"]:
    """Return the probability of each digit for each image of grey values, 0 to 255.

    It raises DataError for other images, DeviceError, or StateError for another dtype than the
    recipe's.
    """
    recipe, images = resolve(recipe), grey_values(images)
    with computing(recipe):
        native, step = import_state(state, recipe), compiled(predict_step, recipe.mode)
        parts = [np.zeros((0, 10))]
        for start in range(0, len(images), EVAL_BATCH):
            batch = pixels(images[start : start + EVAL_BATCH], recipe.dtype)
            unused = np.zeros(len(batch), dtype=np.int64)
            parts.append(to_host([step(native, to_device(batch, unused, recipe)[0])])[0])
        return np.concatenate(parts)


def evaluate_split(state: TrainState, images: Tensor, labels: Tensor, recipe: Recipe) -> Evaluation:
    """Return mean loss and confusion matrix over a split on the device; within `computing`."""
    metrics, step, shared = [], compiled(eval_step, recipe.mode), share_count(recipe) > 1
    for start in range(0, len(labels), EVAL_BATCH):
        if shared:
            places = np.arange(start, min(start + EVAL_BATCH, len(labels)))
            metrics.append(share_metrics(state, images, labels, places, recipe))
            continue
        batch = (rows[start : start + EVAL_BATCH] for rows in (images, labels))
        metrics.append(step(state, *batch))
    sums, confusions = (to_host(list(parts)) for parts in zip(*metrics, strict=True))
    confusion = confusions.sum(axis=0).astype(np.int64)
    return Evaluation(loss=float(sums.sum()) / len(labels), confusion=confusion)


def on_device(split: Split, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return a split's images, scaled, and its labels on the recipe's device."""
    return to_device(pixels(split.images, recipe.dtype), split.labels, recipe)
