"""Causes in the order of axes: merged, split, transposed or cut otherwise."""

from collections.abc import Iterator, Sequence
from typing import Any

import einops

from parity.pairs.causes.candidates import Candidate, Literals, of
from parity.pairs.torch_side.operations import Operation, Variant


@of("view", "_unsafe_view", "reshape")
def flattened(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Axes merged or split in another order."""

    def order(*axes: int) -> Any:
        def compute(_: Any, args: Any, __: Any) -> Any:
            x = args[0]
            if x.ndim != len(axes):
                raise ValueError
            return x.permute(axes).reshape(operation.shape)

        return compute

    def split(_: Any, args: Any, __: Any) -> Any:
        rows = list(operation.shape)
        last, before = rows[-1], rows[-2]
        return args[0].reshape(*rows[:-2], last, before).transpose(-1, -2)

    yield Candidate(
        "flatten-order",
        "PyTorch flattens channels first; JAX channels last",
        "transpose to channels first before the flatten in JAX",
        order(0, 2, 3, 1),
    )
    for axes in ((0, 2, 1), (0, 2, 1, 3), (0, 3, 1, 2), (0, 1, 3, 2), (0, 3, 2, 1), (1, 0)):
        yield Candidate(
            "transposed",
            "the sides merge or split axes in another order",
            "transpose as PyTorch does before the reshape in JAX",
            order(*axes),
        )
    if len(operation.shape) >= 3:
        yield Candidate(
            "transposed",
            "the sides split an axis in another order",
            "split it in PyTorch's order in JAX",
            split,
        )


@of("transpose", "permute", "t")
def transposed(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """No transposition."""
    yield Candidate(
        "transposed",
        "PyTorch transposes where JAX does not",
        "transpose as PyTorch does in JAX",
        lambda func, args, kwargs: args[0].reshape(func(*args, **kwargs).shape),
    )


@of("pixel_shuffle")
def shuffled(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Depth to space with the channels last in the packed axis, as TensorFlow and JAX ports do."""

    def other(sizes: str) -> Any:
        def compute(_: Any, args: Any, __: Any) -> Any:
            x, r = args
            return einops.rearrange(x, f"b ({sizes}) h w -> b c (h p) (w q)", p=r, q=r)

        return compute

    for sizes in ("p q c", "c q p", "q p c", "p c q", "q c p"):
        yield Candidate(
            "transposed",
            f"PyTorch splits channels as (c p q), JAX as ({sizes})",
            "split channels as (c p q) in JAX",
            other(sizes),
        )


def strided(made: Sequence[Operation], _: Literals) -> tuple[Candidate, dict[int, Variant]] | None:
    """Every second element from the second on, in place of the first."""

    def later(func: Any, args: Any, kwargs: Any) -> Any:
        x, axis, start, *rest = args
        return func(x, axis, (start or 0) + 1, *rest)

    variants = {
        o.number: later
        for o in made
        if o.name == "slice" and len(o.scalars) > 3 and o.scalars[3] > 1
    }
    if not variants:
        return None
    candidate = Candidate(
        "stride-phase", "JAX begins one element later", "begin where PyTorch does", later
    )
    return candidate, dict(variants)
