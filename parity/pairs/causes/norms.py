"""Causes in normalisations: epsilon, its place, the variance, the axes."""

from collections.abc import Callable, Iterator, Sequence
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
)
from parity.pairs.torch_side.operations import Operation, Variant

EPSILONS = (1e-5, 1e-6, 1e-12, 1e-3, 1e-8, 1e-7, 1e-4, 1e-10, 0.0)


def other_epsilon(name: str, have: float, place: int, literals: Literals) -> Iterator[Candidate]:
    """Yield other epsilons for an operation that has one as an argument."""
    small = [x for x in literals if 0 <= x < 0.1]
    for other in dict.fromkeys([*small, *EPSILONS]):
        if other != have:
            yield Candidate(
                "epsilon",
                f"PyTorch: {name} with epsilon {have:g}; JAX: epsilon {other:g}",
                f"epsilon={have:g} in JAX",
                argument(place, other),
            )


Axes = tuple[int, ...]
Scale = Callable[[Tensor, Tensor, Axes, float], Tensor]
"""(input, input less its mean, axes, epsilon) → what is normalised."""


@of("native_layer_norm")
def layer_norm(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Layer normalisation with another epsilon, variance or axes."""
    eps = float(operation.scalars[-1])
    yield from other_epsilon("LayerNorm", eps, 4, literals)
    for axis in range(len(operation.shape) - 1):
        yield Candidate(
            "norm-axis",
            f"PyTorch normalises the last axes, JAX axis {axis}",
            "normalise PyTorch's axes in JAX",
            _by_hand(_over(axis)),
        )
    for cause, what, function in (
        ("epsilon-place", "adds epsilon outside of the root", _outside),
        ("variance-unbiased", "divides the variance by n - 1", _unbiased),
        ("variance-unbiased", "divides by the unbiased deviation plus epsilon", _unbiased_outside),
        ("norm-rms", "divides by the root mean square, without subtracting the mean", _rms),
        ("norm-rms", "does not subtract the mean", _uncentred_mean),
    ):
        fix = "normalise by sqrt(mean((x - mean)²) + epsilon) in JAX"
        yield Candidate(cause, f"PyTorch: LayerNorm; JAX {what}", fix, _by_hand(function))


def _by_hand(scale: Scale) -> Variant:
    def compute(_: Any, args: Any, __: Any) -> Any:
        x, shape, weight, bias = args[:4]
        axes = tuple(range(x.ndim - len(shape), x.ndim))
        out = scale(x, x - x.mean(axes, keepdim=True), axes, args[4])
        out = out if weight is None else out * weight
        return (out if bias is None else out + bias), x.mean(axes), x.mean(axes)

    return compute


def _outside(_: Tensor, centred: Tensor, axes: Axes, eps: float) -> Tensor:
    return centred / ((centred**2).mean(axes, keepdim=True).sqrt() + eps)


def _unbiased(_: Tensor, centred: Tensor, axes: Axes, eps: float) -> Tensor:
    return centred / (centred.var(axes, keepdim=True) + eps).sqrt()


def _unbiased_outside(_: Tensor, centred: Tensor, axes: Axes, eps: float) -> Tensor:
    return centred / (centred.std(axes, keepdim=True) + eps)


def _rms(x: Tensor, _: Tensor, axes: Axes, eps: float) -> Tensor:
    return x / ((x**2).mean(axes, keepdim=True) + eps).sqrt()


def _uncentred_mean(x: Tensor, centred: Tensor, axes: Axes, eps: float) -> Tensor:
    return x / ((centred**2).mean(axes, keepdim=True) + eps).sqrt()


def _over(axis: int) -> Scale:
    def scale(x: Tensor, _: Tensor, __: Axes, eps: float) -> Tensor:
        var, mean = torch.var_mean(x, axis, correction=0, keepdim=True)
        return (x - mean) / (var + eps).sqrt()

    return scale


@of(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
)
def batch_norm(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Batch normalisation with another epsilon, or by the batch's own statistics."""
    place = 6 if operation.name.endswith("no_training") else 7
    eps = float(operation.scalars[-1])
    yield from other_epsilon("BatchNorm", eps, place, literals)
    if place == 7:

        def by_batch(func: Any, args: Any, kwargs: Any) -> Any:
            return func(*args[:3], args[3].clone(), args[4].clone(), True, *args[6:], **kwargs)

        yield Candidate(
            "batch-statistics",
            "PyTorch: BatchNorm by its running statistics; JAX: by those of the batch",
            "call model.eval(), or use_running_average=True, in JAX",
            by_batch,
        )

    def outside(_: Any, args: Any, __: Any) -> Any:
        x, weight, bias, mean, var = args[:5]
        shape = [1, -1] + [1] * (x.ndim - 2)
        out = (x - mean.view(shape)) / (var.view(shape).sqrt() + eps)
        out = out * weight.view(shape) + bias.view(shape)
        return out, mean, var

    yield Candidate(
        "epsilon-place",
        "JAX adds epsilon outside of the root",
        "divide by sqrt(var + epsilon) in JAX",
        outside,
    )


@of("native_group_norm")
def group_norm(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Group normalisation with another epsilon, or other groups."""
    yield from other_epsilon("GroupNorm", float(operation.scalars[-1]), 7, literals)
    channels = operation.shape[1]
    for groups in (n for n in range(1, channels + 1) if channels % n == 0):
        if groups != operation.scalars[-2]:
            yield Candidate(
                "groups",
                f"PyTorch: {operation.scalars[-2]} groups; JAX: {groups}",
                f"num_groups={operation.scalars[-2]} in JAX",
                argument(6, groups),
            )


@of("_fused_rms_norm")
def rms_norm(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Root-mean-square normalisation with another epsilon."""
    have = operation.scalars[-1]
    eps = float(have) if isinstance(have, float) else torch.finfo(torch.float64).eps
    yield from other_epsilon("RMSNorm", eps, 3, literals)


@of("var", "std", "var_mean")
def variance(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """The variance divided by n against n - 1."""
    for correction in (0, 1):
        yield Candidate(
            "variance-unbiased",
            f"JAX divides the variance by n{' - 1' * correction}, PyTorch not",
            f"ddof={1 - correction} in JAX",
            lambda func, args, kwargs, c=correction: func(
                args[0], *args[1:2], **{**kwargs, "correction": c}
            ),
        )


def epsilon_place(
    made: Sequence[Operation], _: Literals
) -> tuple[Candidate, dict[int, Variant]] | None:
    """Epsilon added inside of a root against outside of it."""
    for outer in made:
        for inner in made:
            if inner.number not in outer.parents:
                continue
            if inner.name in ("sqrt", "linalg_vector_norm") and outer.name in ("add", "clamp_min"):
                eps = next((x for x in outer.scalars if isinstance(x, float)), None)
                if eps is None:
                    continue

                def into(func: Any, args: Any, kwargs: Any, eps: float = eps) -> Any:
                    if "norm" in func.overloadpacket.__name__:
                        return (func(*args, **kwargs) ** 2 + eps).sqrt()
                    return func(args[0] + eps)

                candidate = Candidate(
                    "epsilon-place",
                    "PyTorch adds epsilon outside of the root, JAX inside",
                    "add it outside in JAX",
                    into,
                )
                return candidate, {inner.number: into, outer.number: applied(torch.clone)}
            if inner.name == "add" and outer.name in ("sqrt", "rsqrt"):
                eps = next((x for x in inner.scalars if isinstance(x, float)), None)
                if eps is None or eps > 0.1:
                    continue

                def out_of(func: Any, args: Any, kwargs: Any, eps: float = eps) -> Any:
                    root = args[0].sqrt() + eps
                    return 1 / root if func.overloadpacket.__name__ == "rsqrt" else root

                candidate = Candidate(
                    "epsilon-place",
                    "PyTorch adds epsilon inside of the root, JAX outside",
                    "add it inside in JAX",
                    out_of,
                )
                return candidate, {outer.number: out_of, inner.number: applied(torch.clone)}
    return None


@of("_weight_norm_interface")
def weight_norm(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """An epsilon in the length that a weight is divided by, which PyTorch has not."""
    for epsilon in dict.fromkeys(x for x in (*literals, 1e-12) if 0 < x < 1e-2):

        def divided(func: Any, args: Any, kwargs: Any, e: float = epsilon) -> Any:
            out, norm = func(*args, **kwargs)
            return out * norm / (norm.square() + e).sqrt(), norm

        yield Candidate(
            "epsilon",
            f"PyTorch's weight norm has no epsilon, JAX's {epsilon:g}",
            "give epsilon=0 in Flax",
            divided,
        )


def unnormalised(made: Sequence[Operation], _: Literals) -> Whole | None:
    """Numbers that are divided by their own sum, as of the experts chosen, against the numbers."""
    known = {operation.number: operation for operation in made}
    for operation in made:
        if operation.name != "div" or len(operation.parents) < 2:
            continue
        total = parents(operation, known)[1]
        if total and total.name == "sum" and operation.parents[0] in total.parents:
            chosen = any(o.name == "topk" for o in made)
            variant = applied(torch.clone)
            candidate = Candidate(
                "topk-normalised" if chosen else "normalised",
                "PyTorch divides by the sum" + " of what it chose" * chosen + ", JAX does not",
                "divide by the sum in JAX",
                variant,
            )
            return candidate, {operation.number: variant}
    return None
