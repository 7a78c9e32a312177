import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from parity.contract.batches import batch_count, batches, random_stream

SIZES = st.integers(1, 300)


@given(st.integers(0, 2**40), st.integers(1, 20), SIZES, st.integers(1, 100))
def test_an_epoch_shows_every_example_once(
    seed: int, epoch: int, examples: int, batch_size: int
) -> None:
    epoch_batches = list(batches(seed=seed, epoch=epoch, examples=examples, batch_size=batch_size))
    assert sorted(np.concatenate(epoch_batches)) == list(range(examples))
    assert len(epoch_batches) == batch_count(examples, batch_size)
    assert {len(batch) for batch in epoch_batches[:-1]} <= {batch_size}


def order(seed: int, epoch: int) -> list[int]:
    return list(next(batches(seed=seed, epoch=epoch, examples=1000, batch_size=1000)))


def test_seed_and_epoch_each_change_the_order() -> None:
    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_the_streams_never_change() -> None:
    """A seed must mean the same training for ever: these numbers are the promise."""
    first = next(batches(seed=7, epoch=1, examples=60_000, batch_size=5))
    assert list(first) == FIRST_BATCH
    assert list(random_stream(7, 0).randint(0, 1000, 5)) == FIRST_NUMBERS


FIRST_BATCH = [3605, 50285, 52445, 58679, 56411]
FIRST_NUMBERS = [74, 811, 597, 686, 821]
