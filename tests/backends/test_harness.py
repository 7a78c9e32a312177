"""What is driven and timed from outside computes what it should, all of it."""

import dataclasses

import numpy as np
import pytest

from parity.contract.backend import Backend
from parity.contract.data.datasets import Dataset, Split, digits, pixels
from parity.contract.recipe import Kernel, Mode, Recipe
from parity.contract.run.progress import chunk_size
from parity.contract.state import initial_state
from parity.subjects.oracle import OracleSession
from tests.conftest import COMPILES, step

STEPS = 300
"""More than a compiled chunk of any size."""

MODES = pytest.mark.parametrize(
    ("backend", "mode", "kernel"),
    [
        ("torchcnn", "eager", "layers"),
        ("torchcnn", "eager", "fused"),
        pytest.param("torchcnn", "jit", "fused", marks=COMPILES),
        ("jaxcnn", "eager", "layers"),
        ("jaxcnn", "eager", "fused"),
        ("jaxcnn", "jit", "fused"),
    ],
    indirect=["backend"],
)


def few(examples: int) -> Dataset:
    data = digits()
    return dataclasses.replace(
        data, train=Split(data.train.images[:examples], data.train.labels[:examples])
    )


@MODES
def test_steps_by_index_are_steps_on_these_examples(
    backend: Backend, mode: Mode, kernel: Kernel
) -> None:
    """More of them than a chunk has."""
    recipe = Recipe(device="cpu", mode=mode, kernel=kernel, dtype="float64", batch_size=4)
    count = STEPS if mode == "jit" else 3
    assert (count > chunk_size(recipe)) is (mode == "jit")
    train, state = few(30).train, initial_state(0, "float64")
    images, labels = pixels(train.images, "float64"), train.labels
    order = np.random.RandomState(0).randint(0, 30, (count, 4))
    oracle = OracleSession(recipe, state)
    expected = oracle.steps(images, labels, order)
    with backend.session(recipe, state) as session:
        losses = session.steps(images, labels, order)
        assert session.export().step == count
    np.testing.assert_allclose(losses, expected, rtol=1e-9)


@MODES
def test_a_workload_trains_on_the_first_batch_and_on_the_data_set(
    backend: Backend, mode: Mode, kernel: Kernel
) -> None:
    recipe = Recipe(device="cpu", mode=mode, kernel=kernel, dtype="float64", batch_size=4)
    dataset, state = few(10), initial_state(0, "float64")
    train = dataset.train
    images, labels = pixels(train.images, "float64"), train.labels
    first, *rest = recipe.batches(1, 10)
    on_batch, on_data = OracleSession(recipe, state), OracleSession(recipe, state)
    again = on_batch.steps(images, labels, np.tile(first, (3, 1)))
    epoch = sum(step(on_data, images[batch], labels[batch]) for batch in (first, *rest))
    with backend.workload(recipe, state, dataset) as workload:
        losses = workload.steps(3)
        loss = workload.epoch()
        workload.forward(2)
        compiled = workload.programs()
        workload.steps(2)
        workload.epoch()
        workload.forward(1)
        assert workload.programs() == compiled
    np.testing.assert_allclose(losses, again, rtol=1e-9)
    assert loss == pytest.approx(epoch, rel=1e-9)
    assert (compiled > 0) is (mode == "jit" or backend.__name__ == "jaxcnn")
