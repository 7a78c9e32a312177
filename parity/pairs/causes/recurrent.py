"""Causes in recurrent layers: the order of their gates and of their steps, a GRU's candidate."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from parity.pairs.causes.candidates import (
    Candidate,
    Literals,
    Whole,
    in_order,
    of,
    orders,
    parents,
    remembering,
)
from parity.pairs.torch_side.operations import Operation, Variant

_CUTS = ("unsafe_split", "split", "unsafe_chunk", "chunk")


def gates(made: Sequence[Operation], literals: Literals) -> Iterator[Whole]:
    """The gates of an LSTM (i, f, g, o) or a GRU (r, z, n) stacked in another order."""
    cuts = [o for o in made if o.name in _CUTS]
    if not cuts or not {"tanh", "sigmoid"} <= {o.name.rstrip("_") for o in made}:
        return
    for order in itertools.chain(*map(orders, (3, 4))):
        cut = in_order(order)
        candidate = Candidate(
            "gate-order",
            f"JAX has the gates in the order {order}",
            "stack the gates as PyTorch does in JAX",
            cut,
        )
        yield candidate, {o.number: cut for o in cuts}


def reset_before(made: Sequence[Operation], _: Literals) -> Whole | None:
    """A GRU's candidate from W (r h) + b, as Cho et al. 2014 have it, in place of r (W h + b).

    PyTorch's cell is of the second form, so that its three products are one.
    """
    known = {operation.number: operation for operation in made}
    variants: dict[int, Variant] = {}
    candidate = None
    for operation in made:
        if operation.name.rstrip("_") != "mul" or len(operation.parents) < 2:
            continue
        cut, gate = parents(operation, known)[:2]
        if not cut or not gate or cut.name not in _CUTS or gate.name.rstrip("_") != "sigmoid":
            continue
        product = next(iter(parents(cut, known)), None)
        if product is None or product.name != "addmm":
            continue
        seen: list[Any] = []

        def before(_: Any, args: Any, __: Any, seen: list[Any] = seen) -> Any:
            bias, hidden, weight = seen
            n = weight.shape[1] // 3
            return torch.addmm(bias[-n:], args[1] * hidden, weight[:, -n:])

        variants |= {product.number: remembering(seen), operation.number: before}
        candidate = Candidate(
            "cell-candidate",
            "JAX resets the state before the candidate's product, PyTorch the product",
            "n = tanh(W x + b + r * (U h + c)) in JAX",
            before,
        )
    return (candidate, variants) if candidate else None


@of("cat")
def turned(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """The steps of a layer that reads backwards, in the order that it read them."""
    for axis in (0, 1):

        def flipped(func: Any, args: Any, kwargs: Any, axis: int = axis) -> Any:
            *parts, last = args[0]
            return func([*parts, last.flip(axis)], *args[1:], **kwargs)

        yield Candidate(
            "sequence-order",
            "JAX has what a layer read backwards in the order of reading",
            "turn it round again in JAX",
            flipped,
        )
