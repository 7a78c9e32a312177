import math
from pathlib import Path

import numpy as np
import pytest

import jaxcnn
import torchcnn
from parity.contract.backend import Backend
from parity.contract.data.datasets import Dataset
from parity.contract.errors import DataError, DivergenceError
from parity.contract.recipe import DType, Mode, Recipe
from parity.contract.run.history import Epoch
from parity.contract.run.observers import Observer
from parity.contract.run.progress import Progress
from parity.contract.state import State
from tests.conftest import COMPILES

SHORT = Recipe(dataset="digits", epochs=2, batch_size=64, limit=200, device="cpu")


@pytest.mark.parametrize("modes", [("eager", "jit"), pytest.param(("jit", "jit"), marks=COMPILES)])
def test_both_backends_print_the_same_training_in_float64(modes: tuple[Mode, Mode]) -> None:
    """The same algorithm, rounded differently: 8 steps part by little more than rounding."""
    histories = [
        backend.fit(Recipe(**{**vars(SHORT), "dtype": "float64", "mode": mode}))
        for backend, mode in zip((torchcnn, jaxcnn), modes, strict=True)
    ]
    lines = [[str(epoch).split(", test")[0] for epoch in history.epochs] for history in histories]
    assert lines[0] == lines[1]
    for name, value in histories[0].state.params.items():
        np.testing.assert_allclose(histories[1].state.params[name], value, rtol=0, atol=1e-12)


def test_a_training_learns(backend: Backend) -> None:
    history = backend.fit(Recipe(dataset="digits", epochs=3, device="cpu"))
    losses = [epoch.loss for epoch in history.epochs]
    assert losses == sorted(losses, reverse=True)
    assert history.epochs[-1].test_accuracy > 0.8
    assert history.state.step == 3 * math.ceil(1437 / 64)


def test_a_training_is_reproducible_and_its_seed_matters(backend: Backend) -> None:
    first, again, other = (
        backend.fit(Recipe(**{**vars(SHORT), "dtype": "float64", "seed": seed}))
        for seed in (0, 0, 1)
    )
    # two threads may add in another order: 8 steps of float64 part by little more than rounding
    np.testing.assert_allclose(first.epochs[-1].loss, again.epochs[-1].loss, rtol=1e-12)
    assert abs(first.epochs[-1].loss - other.epochs[-1].loss) > 1e-3


def test_an_epochs_loss_is_the_sum_of_its_batches_mean_losses(backend: Backend) -> None:
    """With a learning rate too small to matter, each batch has the loss of the initial weights."""
    recipe = Recipe(**{**vars(SHORT), "dtype": "float64", "epochs": 1, "lr": 1e-300})
    initial = backend.evaluate(recipe)
    [epoch] = backend.fit(recipe).epochs
    assert (epoch.test_loss, epoch.test_accuracy) == pytest.approx(
        (initial.loss, initial.accuracy), rel=1e-12
    )
    assert (
        4 * 2 < epoch.loss < 4 * 2.7
    )  # 200 images are 4 batches; an untrained loss is near log 10


def test_observers_hear_start_where_it_stands_and_each_epoch(backend: Backend) -> None:
    heard = []

    class Recorder(Observer):
        def start(self, backend: str, recipe: Recipe, dataset: Dataset) -> None:
            heard.append((backend, recipe.device, recipe.mode, len(dataset.train)))

        every = 3

        def paused(self, progress: Progress, state: State) -> None:
            assert state.step == progress.step
            heard.append((progress.epoch, progress.batch, progress.steps))

        def epoch(self, record: Epoch) -> None:
            heard.append(record.epoch)

    backend.fit(SHORT, observer=Recorder())
    mode = {"torchcnn": "eager", "jaxcnn": "jit"}[backend.__name__]
    steps = [
        [(epoch, batch, 4) for batch in batches]
        for epoch, batches in ((1, (0, 3, 4)), (2, (0, 2, 3, 4)))
    ]
    assert heard == [(backend.__name__, "cpu", mode, 200), *steps[0], 1, *steps[1], 2, (3, 0, 4)]


def test_a_loss_that_is_not_finite_ends_the_training(backend: Backend) -> None:
    with pytest.raises(DivergenceError, match=r"loss of step 2 \(epoch 1, batch 2 of 4\) is"):
        backend.fit(Recipe(**{**vars(SHORT), "lr": 1e30}))


def test_a_limit_beyond_the_data_is_refused(backend: Backend) -> None:
    with pytest.raises(DataError, match="1437 or less"):
        backend.fit(Recipe(dataset="digits", limit=1438))


def test_the_summary_counts_160_and_27050_parameters(backend: Backend) -> None:
    layers = backend.summary()
    assert [layer.name for layer in layers] == ["conv1", "relu", "pool", "flatten", "fc1"]
    assert [sum(layer.parameters) for layer in layers] == [160, 0, 0, 0, 27_050]
    assert [math.prod(layer.output_shape) for layer in layers] == [10_816, 10_816, 2704, 2704, 10]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_epoch_of_mnist_is_the_recipes_in_both(mnist_dir: Path, dtype: DType) -> None:
    """The tutorial's first epoch prints 278.862; over 16 seeds of a prototype it was 285.2 ± 19.0.

    In float32 the two drift apart by rounding; in float64, on a part of it, they print the same.
    """
    limit = 16_000 if dtype == "float64" else None
    recipe = Recipe(data_dir=mnist_dir, epochs=1, dtype=dtype, device="cpu", limit=limit)
    [a], [b] = torchcnn.fit(recipe).epochs, jaxcnn.fit(recipe).epochs
    if dtype == "float64":
        assert str(a).split(", test")[0] == str(b).split(", test")[0]
        assert a.test_accuracy == b.test_accuracy
    else:
        assert f"{a.loss:.4g}" == f"{b.loss:.4g}"
        assert abs(a.loss - 285.2) < 3 * 19.0
        assert a.test_accuracy > 0.94
