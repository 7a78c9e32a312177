"""Causes in the order of axes: merged, split, transposed or cut otherwise."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import einops

from parity.pairs.causes.candidates import Candidate, Literals, in_order, of, orders, parents
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


@of("cat", "stack")
def joined(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Parts that are put together in another order."""
    n = len(operation.parents)
    for order in orders(n) if n <= 4 else ():

        def compute(func: Any, args: Any, kwargs: Any, order: Any = order) -> Any:
            parts, *rest = args
            return func([parts[i] for i in order], *rest, **kwargs)

        yield Candidate(
            "parts-order",
            f"JAX puts {n} parts together in the order {order}",
            "put them together in PyTorch's order in JAX",
            compute,
        )


@of("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "unbind")
def parted(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Parts that are taken in another order, as the halves of a gated unit."""
    for order in itertools.chain(*map(orders, (2, 3, 4))):
        yield Candidate(
            "parts-order",
            f"JAX takes {len(order)} parts in the order {order}",
            "take them in PyTorch's order in JAX",
            in_order(order),
        )


@of("glu")
def gated(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """The other half of a gated linear unit as its gate."""
    yield Candidate(
        "parts-order",
        "PyTorch's gate is the second half; JAX's the first",
        "gate by the second half in JAX",
        lambda func, args, kwargs: func(args[0].roll(operation.shape[_axis(args)], _axis(args))),
    )


def _axis(args: Any) -> int:
    return args[1] if len(args) > 1 else -1


@of("roll")
def rolled(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """A shift in the other direction."""
    yield Candidate(
        "roll-direction",
        "JAX shifts in the other direction",
        "give PyTorch's shift in JAX",
        lambda func, args, kwargs: func(args[0], [-n for n in args[1]], *args[2:]),
    )


def repeated(made: Sequence[Operation], _: Literals) -> tuple[Candidate, dict[int, Variant]] | None:
    """Each part repeated in its place, against all parts repeated one after the other."""
    known = {operation.number: operation for operation in made}
    variants: dict[int, Variant] = {}
    for operation in made:
        if operation.name not in ("view", "_unsafe_view", "reshape"):
            continue
        before = next(iter(parents(operation, known)), None)
        if before is not None and before.name == "clone":
            before = next(iter(parents(before, known)), None)
        if before is None or before.name != "expand":
            continue
        source = next(iter(parents(before, known)), None)
        if source is None or source.shape == before.shape:  # as a product's operands
            continue
        axis = next((i for i, (a, b) in enumerate(zip(before.shape, operation.shape, strict=False))
                     if a != b), None)  # fmt: skip
        if axis is None or axis + 1 >= len(before.shape):
            continue

        def tiled(_: Any, args: Any, __: Any, a: int = axis, to: Any = operation.shape) -> Any:
            return args[0].transpose(a, a + 1).reshape(to)

        variants[operation.number] = tiled
    if not variants:
        return None
    candidate = Candidate(
        "repeat-order",
        "PyTorch repeats each part in its place; JAX all, one after the other",
        "jnp.repeat, not jnp.tile, in JAX",
        next(iter(variants.values())),
    )
    return candidate, variants


@of("repeat")
def tiles(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """All parts repeated one after the other, against each in its place."""

    def in_place(_: Any, args: Any, __: Any) -> Any:
        x, counts = args
        x = x.reshape(*[1] * (len(counts) - x.ndim), *x.shape)
        for axis, count in enumerate(counts):
            x = x.repeat_interleave(count, axis)
        return x

    yield Candidate(
        "repeat-order",
        "PyTorch repeats all parts one after the other; JAX each in its place",
        "jnp.tile, not jnp.repeat, in JAX",
        in_place,
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
