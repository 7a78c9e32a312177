import dataclasses
import itertools

import numpy as np
import pytest

from parity.contract.batches import batches
from parity.contract.data.datasets import Dataset
from parity.contract.recipe import Kernel, Mode, Recipe
from parity.contract.run.progress import Progress, chunk_size
from parity.contract.state import initial_state

RECIPE = Recipe(dataset="digits", batch_size=2, epochs=1, mode="eager")


def walk(progress: Progress, every: int | None) -> list[np.ndarray]:
    chunks = []
    for chunk in progress.chunks(every):
        chunks.append(chunk)
        progress.add(np.ones(len(chunk)), initial_state(0))
    return chunks


@pytest.mark.parametrize("every", [None, 1, 2, 7])
@pytest.mark.parametrize("done", [0, 1, 2])
def test_chunks_are_what_is_left_of_the_epoch_in_order(
    tiny: Dataset, every: int | None, done: int
) -> None:
    order = list(batches(seed=0, epoch=1, examples=len(tiny.train), batch_size=2))
    progress = Progress(RECIPE, tiny, None)
    progress.batch = done
    chunks = walk(progress, every)
    left = list(itertools.chain.from_iterable(chunks))
    assert len(left) == len(order) - done
    for got, expected in zip(left, order[done:], strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_smaller_last_batch_is_a_chunk_of_its_own(tiny: Dataset) -> None:
    data = tiny.first(5)
    assert [chunk.shape for chunk in walk(Progress(RECIPE, data, None), None)] == [(2, 2), (1, 1)]


@pytest.mark.parametrize(
    ("mode", "kernel", "batch_size", "steps"),
    [
        ("eager", "fused", 64, 32),
        ("eager", "layers", 512, 4),
        ("jit", "layers", 64, 64),
        ("jit", "fused", 64, 128),
        ("jit", "fused", 1, 256),
        ("jit", "fused", 60_000, 1),
    ],
)
def test_a_chunk_is_short_where_steps_are_long(
    mode: Mode, kernel: Kernel, batch_size: int, steps: int
) -> None:
    recipe = dataclasses.replace(RECIPE, mode=mode, kernel=kernel, batch_size=batch_size)
    assert chunk_size(recipe) == steps
