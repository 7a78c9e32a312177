"""Causes in sums, products and means: another number, factor, axis or reduction."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from parity.pairs.causes.candidates import Candidate, Literals, applied, argument, of
from parity.pairs.causes.norms import EPSILONS
from parity.pairs.torch_side.operations import Operation, Variant


@of("add", "sub", "rsub", "clamp_min", "clamp")
def added(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Another number that is added; a small one is an epsilon."""
    numbers = [x for x in operation.scalars if isinstance(x, float | int) and x is not True]
    if not numbers or len(operation.parents) > 1:
        return
    have = float(numbers[0])
    epsilon = 0 < abs(have) < 0.01
    for other in dict.fromkeys([*literals, *(EPSILONS if epsilon else (0.0,))]):
        if other != have and (not epsilon or abs(other) < 0.1):
            yield Candidate(
                "epsilon" if epsilon else "constant",
                f"PyTorch: {operation.name} {have:g}; JAX: {other:g}",
                f"use {have:g} in JAX",
                argument(1, other),
            )


@of("pow")
def base(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Another base of a power, as of rotary frequencies."""
    numbers = [x for x in operation.scalars if isinstance(x, float | int)]
    for other in dict.fromkeys([*literals, 10000.0, 500000.0, 1000000.0, 1000.0]):
        if numbers and other != numbers[0]:
            yield Candidate(
                "constant",
                f"PyTorch: {numbers[0]:g} to a power; JAX: {other:g}",
                f"use {numbers[0]:g} in JAX",
                argument(0, other),
            )


@of("mul", "div", "pow")
def factor(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Another factor, or none."""
    numbers = [x for x in operation.scalars if isinstance(x, float | int)]
    if not numbers or len(operation.parents) > 1:
        return
    have = float(numbers[0])
    inverse = [1 / x for x in literals if x]
    for other in dict.fromkeys([1.0, -1.0, *literals, *inverse, -have]):
        if other != have:
            without = "no factor" if other == 1 and operation.name != "pow" else f"{other:g}"
            yield Candidate(
                "scale" if operation.name != "pow" else "constant",
                f"PyTorch: {operation.name} {have:g}; JAX: {without}",
                f"{operation.name} by {have:g} in JAX",
                argument(1, other),
            )


@of("add")
def term(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """A factor that only JAX has at one term of a sum."""
    for factor in dict.fromkeys(x for x in literals if x not in (0, 1)):
        for place in (0, 1):

            def compute(
                func: Any, args: Any, kwargs: Any, f: float = factor, p: int = place
            ) -> Any:
                return func(*(x * f if i == p else x for i, x in enumerate(args)), **kwargs)

            yield Candidate(
                "scale",
                f"JAX multiplies one term of the sum by {factor:.7g}",
                "leave the factor out in JAX",
                compute,
            )


@of("bmm", "mm", "baddbmm", "sum", "mean", "embedding", "mse_loss", "l1_loss", "huber_loss")
def scaled(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """A factor that only JAX has."""
    numbers = [*literals, *(1 / x for x in literals if x)]
    numbers += [x**0.5 for x in literals if x > 0]
    numbers += [0.5, 2.0] if "loss" in operation.name else []
    for factor in dict.fromkeys(x for x in numbers if x not in (0, 1)):

        def compute(func: Any, args: Any, kwargs: Any, factor: float = factor) -> Any:
            return func(*args, **kwargs) * factor

        yield Candidate(
            "scale",
            f"JAX multiplies by {factor:.7g} what PyTorch takes as it is ({operation.name})",
            "leave the factor out in JAX",
            compute,
        )


@of("bmm", "mm")
def operands(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """A product with a square matrix, transposed."""

    def turned(place: int) -> Variant:
        def compute(func: Any, args: Any, kwargs: Any) -> Any:
            if args[place].shape[-1] != args[place].shape[-2]:
                raise ValueError
            new = args[place].transpose(-1, -2)
            return func(*(new if i == place else x for i, x in enumerate(args)), **kwargs)

        return compute

    for place, which in ((1, "second"), (0, "first")):
        yield Candidate(
            "transposed",
            f"JAX has the {which} matrix of a product transposed",
            "sum over the axis that PyTorch sums over in JAX",
            turned(place),
        )


@of("_softmax", "_log_softmax", "cumsum", "cumprod")
def axis(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Another axis."""
    rank = len(operation.shape)
    have = int(operation.scalars[0]) % rank
    for other in range(rank):
        if other != have:
            yield Candidate(
                "softmax-axis" if "softmax" in operation.name else "axis",
                f"PyTorch: {operation.name.strip('_')} over axis {have}; JAX: over axis {other}",
                f"axis={have - rank} in JAX",
                argument(1, other),
            )


@of("_softmax", "_log_softmax")
def softmax(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """None, or its logarithm against itself."""
    logarithm = operation.name.startswith("_log")
    name, other = ("log_softmax", "softmax") if logarithm else ("softmax", "log_softmax")
    for said, function in (
        (f"no {name}", Tensor.clone),
        (other, lambda x: x.softmax(-1) if logarithm else x.log_softmax(-1)),
    ):
        yield Candidate(
            "softmax", f"PyTorch: {name}; JAX: {said}", f"use {name} in JAX", applied(function)
        )


@of("select")
def pooled(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """One token of a sequence against the mean of all."""

    def other(index: int) -> Variant:
        return lambda func, args, kwargs: func(args[0], args[1], index)

    def mean(_: Any, args: Any, __: Any) -> Any:
        return args[0].mean(args[1])

    yield Candidate(
        "pooling", "PyTorch takes one row; JAX the mean of all", "take PyTorch's in JAX", mean
    )
    for index in (0, -1):
        if index != operation.scalars[-1]:
            yield Candidate(
                "pooling",
                f"PyTorch takes row {operation.scalars[-1]}; JAX row {index}",
                "take PyTorch's row in JAX",
                other(index),
                needs=("slice|dynamic_slice|gather|split",),
            )


@of("mean")
def pooled_mean(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """The mean of all tokens against one of them, or their maximum."""
    for index in (0, -1):
        yield Candidate(
            "pooling",
            f"PyTorch takes the mean; JAX row {index}",
            "take the mean in JAX",
            lambda _, args, __, i=index: args[0].select(_one(args[1]), i),
        )
    yield Candidate(
        "pooling",
        "PyTorch takes the mean; JAX the maximum",
        "take the mean in JAX",
        lambda _, args, __: args[0].amax(args[1]),
    )


def _one(axes: Any) -> int:
    return axes[0] if isinstance(axes, list | tuple) else axes


@of(
    "mean",
    "sum",
    "nll_loss_forward",
    "mse_loss",
    "smooth_l1_loss",
    "huber_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
)
def reduction(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """The sum for the mean, or the mean for the sum."""

    def swapped(func: Any, args: Any, kwargs: Any) -> Any:
        if operation.name in ("mean", "sum"):
            other = torch.sum if operation.name == "mean" else torch.mean
            return other(*args, **kwargs)
        places = {a.name: n for n, a in enumerate(func._schema.arguments)}
        place = places["reduction"]
        have = args[place] if place < len(args) else 1
        return argument(place, 3 - have)(func, args, kwargs)

    yield Candidate(
        "reduction",
        "one side takes the sum, the other the mean",
        "take the same of both in JAX",
        swapped,
    )
