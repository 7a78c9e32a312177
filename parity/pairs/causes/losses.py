"""Causes in losses: what a mean is divided by, smoothing, the width of a quadratic part."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F

from parity.pairs.causes.candidates import Candidate, Literals, Whole, argument, of
from parity.pairs.torch_side.operations import Operation


@of("nll_loss_forward")
def ignored(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """The mean over all labels, those that are ignored too."""

    def over_all(func: Any, args: Any, kwargs: Any) -> Any:
        out, weight = func(*args, **kwargs)
        return out * weight / args[1].numel(), weight

    yield Candidate(
        "reduction",
        "JAX divides by the number of all labels, PyTorch by that of those that are not ignored",
        "divide by the labels that count in JAX",
        over_all,
    )


@of("smooth_l1_loss", "huber_loss")
def huber(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Another width of the quadratic part."""
    for other in dict.fromkeys([*literals, 1.0, 0.5, 0.1]):
        yield Candidate(
            "huber-delta",
            f"JAX's quadratic part ends at {other:g}",
            "give the same delta in JAX",
            argument(3, other),
        )
    if operation.name == "smooth_l1_loss":
        yield Candidate(
            "huber-delta",
            "PyTorch: smooth_l1_loss; JAX: Huber's, which is that times beta",
            "divide by delta in JAX",
            lambda _, args, __: F.huber_loss(args[0], args[1], delta=args[3] if args[3:] else 1.0),
        )


def label_smoothing(made: Sequence[Operation], literals: Literals) -> Iterator[Whole]:
    """Cross entropy with other smoothing: (1 - e)·nll + e/K·(the sum over all K classes)."""
    names = [operation.name for operation in made]
    whole = next((o for o in made if o.name == "_log_softmax"), None)
    nll = next((o for o in made if o.name == "nll_loss_forward"), None)
    if whole is None or nll is None or names[-3:] != ["mul", "mul", "add"]:
        return
    classes = whole.shape[int(whole.scalars[0])]
    small, large = made[-3], made[-2]
    have = 1 - float(large.scalars[0])
    for other in dict.fromkeys([0.0, have, *(x for x in literals if 0 < x < 1), 0.1, 0.2, 0.05]):
        for weight, what in (
            (other / classes, "to all classes"),
            (other / (classes - 1), "to the other classes"),
        ):
            rest = 1 - other - (weight if "other" in what else 0)
            candidate = Candidate(
                "label-smoothing",
                f"PyTorch: {have:g} to all classes; JAX: {other:g} {what}",
                f"optax.smooth_labels(one_hot, {have:g}) in JAX",
                argument(1, weight),
            )
            yield candidate, {small.number: argument(1, weight), large.number: argument(1, rest)}


def unsmoothed(made: Sequence[Operation], literals: Literals) -> Iterator[Whole]:
    """Smoothing that only JAX has."""
    nll = next((o for o in made if o.name == "nll_loss_forward"), None)
    if nll is None or any(o.name == "neg" for o in made):
        return
    for amount in dict.fromkeys([*(x for x in literals if 0 < x < 1), 0.1, 0.2, 0.05]):

        def smoothed(func: Any, args: Any, kwargs: Any, e: float = amount) -> Any:
            out, weight = func(*args, **kwargs)
            return (1 - e) * out - e * args[0].mean(1).mean(), weight

        candidate = Candidate(
            "label-smoothing",
            f"PyTorch: none; JAX: {amount:g}",
            "smooth no labels in JAX",
            smoothed,
        )
        yield candidate, {nll.number: smoothed}


@of("mean")
def batch_mean(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """The mean over all elements, against the sum divided by the size of the batch."""
    yield Candidate(
        "loss-divisor",
        "PyTorch divides by the number of elements; JAX by that of rows",
        "divide by the number of elements in JAX",
        lambda func, args, kwargs: args[0].sum() / args[0].shape[0],
    )
