"""Causes in losses: what a mean is divided by."""

from collections.abc import Iterator

from parity.pairs.causes import Candidate, Literals, of
from parity.pairs.torch_side import Operation


@of("mean")
def batch_mean(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """The mean over all elements, against the sum divided by the size of the batch."""
    yield Candidate(
        "loss-divisor",
        "PyTorch divides by the number of elements; JAX by that of rows",
        "divide by the number of elements in JAX",
        lambda func, args, kwargs: args[0].sum() / args[0].shape[0],
    )
