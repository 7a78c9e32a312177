"""The catalogue of causes: each is another way to compute one of PyTorch's operations.

A cause is proved, not guessed: PyTorch's side is run again with that one operation computed
otherwise, and what JAX computes must come out to rounding.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from parity.pairs.rules import Rules
from parity.pairs.torch_side.operations import Operation, Variant


@dataclass(frozen=True)
class Candidate:
    """Another way to compute an operation, which is the cause if JAX's numbers come out."""

    cause: str
    explanation: str
    """What each side does."""
    fix: str
    variant: Variant
    needs: tuple[str, ...] = ()
    """What JAX's code of the region has if this is the cause: primitives; `a|b` is one of both."""

    def fits(self, names: Collection[str]) -> bool:
        """Whether a region of these primitives may have it."""
        return all(any(name in names for name in need.split("|")) for need in self.needs)


Literals = Sequence[float]
"""The numbers that stand in JAX's code of the region."""
Rule = Callable[[Operation, Literals], Iterator[Candidate]]
RULES: Rules[Rule] = Rules()
"""By the name of the aten operation."""
of = RULES.of

Whole = tuple["Candidate", dict[int, Variant]]
Together = Callable[[Sequence[Operation], Literals], "Whole | Iterator[Whole] | None"]


def argument(place: int, value: Any) -> Variant:
    """Return the variant with one positional argument replaced."""

    def compute(func: Any, args: Any, kwargs: Any) -> Any:
        names = [argument.name for argument in func._schema.arguments]
        if place < len(args):
            args = (*args[:place], value, *args[place + 1 :])
            return func(*args, **kwargs)
        return func(*args, **{**kwargs, names[place]: value})

    return compute


def parents(operation: Operation, known: Mapping[int, Operation]) -> list[Operation | None]:
    """Return what makes an operation's tensors; None where it is not among those known."""
    return [known.get(made) if isinstance(made, int) else None for made in operation.parents]


def remembering(seen: list[Any]) -> Variant:
    """Return the operation as it is, which leaves its arguments in a list for another's variant."""

    def keep(func: Any, args: Any, kwargs: Any) -> Any:
        seen[:] = args
        return func(*args, **kwargs)

    return keep


def orders(n: int) -> list[tuple[int, ...]]:
    """Return the other orders of n parts."""
    return list(itertools.permutations(range(n)))[1:]


def in_order(order: tuple[int, ...]) -> Variant:
    """Return the operation that cuts an array into parts, which come in another order."""

    def cut(func: Any, args: Any, kwargs: Any) -> Any:
        parts = func(*args, **kwargs)
        if len(parts) != len(order):
            raise ValueError
        return [parts[i] for i in order]

    return cut


def applied(function: Callable[[Tensor], Tensor]) -> Variant:
    """Return the variant that computes a function of the first argument instead."""
    return lambda _, args, __: function(args[0])
