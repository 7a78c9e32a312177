"""Causes in masks: their diagonal, their number, what they hide."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from parity.pairs.causes.candidates import (
    Candidate,
    Literals,
    Whole,
    applied,
    argument,
    of,
    parents,
    remembering,
)
from parity.pairs.torch_side.operations import Operation


@of("tril", "triu")
def diagonal(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """A mask that begins at another diagonal."""
    numbers = [x for x in operation.scalars if isinstance(x, int)]
    have = numbers[0] if numbers else 0
    for other in (have - 1, have + 1):
        yield Candidate(
            "mask-diagonal",
            f"PyTorch's mask begins at diagonal {have}; JAX's at {other}",
            f"k={have} in JAX",
            argument(1, other),
        )
    yield Candidate(
        "mask-missing",
        "JAX has no mask",
        "mask in JAX",
        lambda _, args, __: torch.ones_like(args[0]),
    )


def _shifted(mask: Tensor, step: int, fill: bool) -> Tensor:
    """Return a mask moved along its last axis, so that its diagonal is another."""
    new = mask.roll(step, -1)
    new[..., 0 if step > 0 else -1] = fill
    return new


@of("masked_fill", "where")
def masked(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Another number where a mask is."""
    filled = operation.name.rstrip("_") == "masked_fill"
    numbers = [x for x in operation.scalars if isinstance(x, float | int)]
    for other in dict.fromkeys([*literals, -math.inf, -1e9, -1e4, -1e30, 0.0]):
        if filled and numbers and other != numbers[0]:
            yield Candidate(
                "mask-value",
                f"PyTorch: {numbers[0]:g} where masked; JAX: {other:g}",
                f"mask by {numbers[0]:g} in JAX",
                lambda func, args, kwargs, value=other: torch.masked_fill(args[0], args[1], value),
            )

    def inverted(func: Any, args: Any, kwargs: Any) -> Any:
        place = 1 if filled else 0
        return func(*args[:place], ~args[place], *args[place + 1 :], **kwargs)

    yield Candidate(
        "mask-inverted", "JAX hides what PyTorch shows", "invert the mask in JAX", inverted
    )
    for step, hidden in ((1, False), (-1, True)):
        for fill in (hidden, not hidden):

            def moved(func: Any, args: Any, kwargs: Any, s: int = step, f: bool = fill) -> Any:
                place = 1 if filled else 0
                new = _shifted(args[place].clone(), s, f)
                return func(*args[:place], new, *args[place + 1 :], **kwargs)

            yield Candidate(
                "mask-diagonal",
                "JAX's mask begins at the next diagonal",
                "take PyTorch's diagonal in JAX",
                moved,
            )
    if filled:
        yield Candidate("mask-missing", "JAX has no mask", "mask in JAX", applied(torch.clone))


def added_mask(made: Sequence[Operation], _: Literals) -> Whole | None:
    """A mask of great negative numbers that is added before a softmax, against none."""
    known = {operation.number: operation for operation in made}
    sums = [
        of_softmax
        for operation in made
        if operation.name == "_softmax"
        for of_softmax in parents(operation, known)
        if of_softmax is not None and of_softmax.name.rstrip("_") == "add"
    ]
    if not sums:
        return None

    def unmasked(func: Any, args: Any, kwargs: Any) -> Any:
        shown, mask = args[:2]
        if not isinstance(mask, Tensor) or not (mask <= -1e4).any():
            raise ValueError
        return shown.clone()

    what = "PyTorch adds a mask before the softmax; JAX has none"
    candidate = Candidate("mask-missing", what, "mask in JAX", unmasked)
    return candidate, {o.number: unmasked for o in sums}


def hidden_rows(made: Sequence[Operation], _: Literals) -> Whole | None:
    """A row that a mask hides as a whole: a softmax of equal numbers against zeros."""
    masks = [o for o in made if o.name == "masked_fill"]
    softmaxes = [o for o in made if masks and o.name == "_softmax" and o.number > masks[0].number]
    if not softmaxes:
        return None
    mask, softmax = masks[0], softmaxes[0]
    seen: list[Any] = []

    def zeros(func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs).masked_fill(seen[1], 0.0)

    candidate = Candidate(
        "mask-value",
        "a row that is masked as a whole: PyTorch has a mean of all, JAX zeros",
        "leave the zeros out in JAX",
        zeros,
    )
    return candidate, {mask.number: remembering(seen), softmax.number: zeros}
