"""What a seed gives: each epoch's batches, and the numbers that initial parameters are made of.

The numbers are those of `numpy.random.RandomState`, which NumPy has frozen (NEP 19).
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64


def batches(
    *, seed: int, epoch: int, examples: int, batch_size: int
) -> Iterator[Int64[np.ndarray, "batch"]]:
    """Yield the indices of each batch of one epoch, counted from 1; the last has the remainder."""
    order = random_stream(seed, 1, epoch).permutation(examples).astype(np.int64)
    for start in range(0, examples, batch_size):
        yield order[start : start + batch_size]


def batch_count(examples: int, batch_size: int) -> int:
    """Return the number of batches in an epoch, the short last one included."""
    return -(-examples // batch_size)


def random_stream(seed: int, *key: int) -> np.random.RandomState:
    """Return a seed's numbers: key 0 for the initial parameters, 1 and the epoch for batches."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed, spawn_key=key)))
