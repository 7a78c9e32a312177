"""The catalogue of causes: each is another way to compute one of PyTorch's operations.

A cause is proved, not guessed: PyTorch's side is run again with that one operation computed
otherwise, and what JAX computes must come out to rounding.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from parity.pairs.torch_side import Operation, Variant


@dataclass(frozen=True)
class Candidate:
    """Another way to compute an operation, which is the cause if JAX's numbers come out."""

    cause: str
    explanation: str
    """What each side does."""
    fix: str
    variant: Variant


Literals = Sequence[float]
"""The numbers that stand in JAX's code of the region."""
Rule = Callable[[Operation, Literals], Iterator[Candidate]]
RULES: dict[str, list[Rule]] = {}


def of(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule for the aten operations of these names."""

    def enter(rule: Rule) -> Rule:
        for name in names:
            RULES.setdefault(name, []).append(rule)
        return rule

    return enter


def candidates(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Yield each other way to compute an operation, the most frequent mistakes first."""
    for rule in RULES.get(operation.name.rstrip("_"), ()):
        yield from rule(operation, literals)


Whole = tuple["Candidate", dict[int, Variant]]
Together = Callable[[Sequence[Operation], Literals], "Whole | Iterator[Whole] | None"]
TOGETHER: list[Together] = []


def together(
    made: Sequence[Operation], literals: Literals
) -> Iterator[tuple[Candidate, dict[int, Variant]]]:
    """Yield causes that change several operations of a region at once."""
    for rule in TOGETHER:
        found = rule(made, literals)
        if isinstance(found, tuple):
            yield found
        elif found:
            yield from found


def _argument(place: int, value: Any) -> Variant:
    """Return the variant with one positional argument replaced."""

    def compute(func: Any, args: Any, kwargs: Any) -> Any:
        names = [argument.name for argument in func._schema.arguments]
        if place < len(args):
            args = (*args[:place], value, *args[place + 1 :])
            return func(*args, **kwargs)
        return func(*args, **{**kwargs, names[place]: value})

    return compute


def _as(function: Callable[[Tensor], Tensor]) -> Variant:
    """Return the variant that computes a function of the first argument instead."""
    return lambda _, args, __: function(args[0])


@of("gelu")
def gelu(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """The tanh approximation against the error function (Hendrycks and Gimpel 2016)."""
    tanh = "tanh" in operation.scalars
    ours, theirs = ("tanh", "erf") if tanh else ("erf", "tanh")
    other = "none" if tanh else "tanh"
    yield Candidate(
        "gelu-tanh",
        f"PyTorch: gelu ({ours}); JAX: gelu ({theirs})",
        f"jax.nn.gelu(x, approximate={tanh})",
        lambda func, args, kwargs: func(*args, **{**kwargs, "approximate": other}),
    )


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu (tanh)": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu6": F.relu6,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "leaky_relu": F.leaky_relu,
    "softplus": F.softplus,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu squared": lambda x: torch.relu(x) ** 2,
    "softsign": F.softsign,
    "logsigmoid": F.logsigmoid,
    "no activation": lambda x: x.clone(),
}


@of(
    "leaky_relu",
    "elu",
    "celu",
    "softplus",
    "threshold",
    "hardtanh",
    "hardshrink",
    "softshrink",
    "rrelu_with_noise",
    "logit",
)
def parameter(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """An activation's constant."""
    name = "negative-slope" if operation.name.startswith("leaky") else "constant"
    usual = (0.01, 0.1, 0.2, 0.3, 1.0, 20.0)
    numbers = [x for x in operation.scalars if isinstance(x, float | int)] or [0.01]
    for place, value in enumerate(numbers):
        for other in dict.fromkeys([*literals, *usual]):
            if other != value:
                yield Candidate(
                    name,
                    f"PyTorch: {operation.name} with {value:g}; JAX: {other:g}",
                    f"give {value:g} in JAX",
                    _argument(place + 1, other),
                )


@of(
    "relu",
    "gelu",
    "silu",
    "tanh",
    "sigmoid",
    "leaky_relu",
    "elu",
    "softplus",
    "mish",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "relu6",
    "log_sigmoid_forward",
    "celu",
)
def activation(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Another activation, or none."""
    for name, function in _ACTIVATIONS.items():
        if name != operation.name:
            yield Candidate(
                "activation",
                f"PyTorch: {operation.name}; JAX: {name}",
                f"use {operation.name} in JAX",
                _as(function),
            )


_EPSILONS = (1e-5, 1e-6, 1e-12, 1e-3, 1e-8, 1e-7, 1e-4, 1e-10, 0.0)


def _epsilon(name: str, have: float, place: int, literals: Literals) -> Iterator[Candidate]:
    small = [x for x in literals if 0 <= x < 0.1]
    for other in dict.fromkeys([*small, *_EPSILONS]):
        if other != have:
            yield Candidate(
                "epsilon",
                f"PyTorch: {name} with epsilon {have:g}; JAX: epsilon {other:g}",
                f"epsilon={have:g} in JAX",
                _argument(place, other),
            )


@of("native_layer_norm")
def layer_norm(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Layer normalisation with another epsilon, variance or axes."""
    eps = float(operation.scalars[-1])
    yield from _epsilon("LayerNorm", eps, 4, literals)

    def by_hand(scale: Callable[[Tensor, Tensor, tuple[int, ...], float], Tensor]) -> Variant:
        def compute(_: Any, args: Any, __: Any) -> Any:
            x, shape, weight, bias = args[:4]
            axes = tuple(range(x.ndim - len(shape), x.ndim))
            out = scale(x, x - x.mean(axes, keepdim=True), axes, args[4])
            out = out if weight is None else out * weight
            return (out if bias is None else out + bias), x.mean(axes), x.mean(axes)

        return compute

    def outside(_: Tensor, centred: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
        return centred / ((centred**2).mean(axes, keepdim=True).sqrt() + eps)

    def unbiased(_: Tensor, centred: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
        return centred / (centred.var(axes, keepdim=True) + eps).sqrt()

    def unbiased_outside(_: Tensor, centred: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
        return centred / (centred.std(axes, keepdim=True) + eps)

    def rms(x: Tensor, _: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
        return x / ((x**2).mean(axes, keepdim=True) + eps).sqrt()

    def uncentred_mean(x: Tensor, centred: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
        return x / ((centred**2).mean(axes, keepdim=True) + eps).sqrt()

    def over(axis: int) -> Callable[[Tensor, Tensor, tuple[int, ...], float], Tensor]:
        def scale(x: Tensor, _: Tensor, __: tuple[int, ...], eps: float) -> Tensor:
            var, mean = torch.var_mean(x, axis, correction=0, keepdim=True)
            return (x - mean) / (var + eps).sqrt()

        return scale

    for axis in range(len(operation.shape) - 1):
        yield Candidate(
            "norm-axis",
            f"PyTorch normalises the last axes, JAX axis {axis}",
            "normalise PyTorch's axes in JAX",
            by_hand(over(axis)),
        )
    for cause, what, function in (
        ("epsilon-place", "adds epsilon outside of the root", outside),
        ("variance-unbiased", "divides the variance by n - 1", unbiased),
        ("variance-unbiased", "divides by the unbiased deviation plus epsilon", unbiased_outside),
        ("norm-rms", "divides by the root mean square, without subtracting the mean", rms),
        ("norm-rms", "does not subtract the mean", uncentred_mean),
    ):
        fix = "normalise by sqrt(mean((x - mean)²) + epsilon) in JAX"
        yield Candidate(cause, f"PyTorch: LayerNorm; JAX {what}", fix, by_hand(function))


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
    yield from _epsilon("BatchNorm", eps, place, literals)
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
    yield from _epsilon("GroupNorm", float(operation.scalars[-1]), 7, literals)
    channels = operation.shape[1]
    for groups in (n for n in range(1, channels + 1) if channels % n == 0):
        if groups != operation.scalars[-2]:
            yield Candidate(
                "groups",
                f"PyTorch: {operation.scalars[-2]} groups; JAX: {groups}",
                f"num_groups={operation.scalars[-2]} in JAX",
                _argument(6, groups),
            )


@of("_fused_rms_norm")
def rms_norm(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Root-mean-square normalisation with another epsilon."""
    have = operation.scalars[-1]
    eps = float(have) if isinstance(have, float) else torch.finfo(torch.float64).eps
    yield from _epsilon("RMSNorm", eps, 3, literals)


@of("add", "sub", "rsub", "clamp_min", "clamp")
def added(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Another number that is added; a small one is an epsilon."""
    numbers = [x for x in operation.scalars if isinstance(x, float | int) and x is not True]
    if not numbers or len(operation.parents) > 1:
        return
    have = float(numbers[0])
    epsilon = 0 < abs(have) < 0.01
    for other in dict.fromkeys([*literals, *(_EPSILONS if epsilon else (0.0,))]):
        if other != have and (not epsilon or abs(other) < 0.1):
            yield Candidate(
                "epsilon" if epsilon else "constant",
                f"PyTorch: {operation.name} {have:g}; JAX: {other:g}",
                f"use {have:g} in JAX",
                _argument(1, other),
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
                _argument(0, other),
            )


@of("mul", "div", "pow")
def factor(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Another factor, or none."""
    numbers = [x for x in operation.scalars if isinstance(x, float | int)]
    if not numbers or len(operation.parents) > 1:
        return
    have = float(numbers[0])
    inverse = [1 / x for x in literals if x]
    for other in dict.fromkeys([1.0, *literals, *inverse]):
        if other != have:
            without = "no factor" if other == 1 and operation.name != "pow" else f"{other:g}"
            yield Candidate(
                "scale" if operation.name != "pow" else "constant",
                f"PyTorch: {operation.name} {have:g}; JAX: {without}",
                f"{operation.name} by {have:g} in JAX",
                _argument(1, other),
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
                _argument(1, other),
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
        return _argument(place, 3 - have)(func, args, kwargs)

    yield Candidate(
        "reduction",
        "one side takes the sum, the other the mean",
        "take the same of both in JAX",
        swapped,
    )


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


@of("smooth_l1_loss", "huber_loss")
def huber(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Another width of the quadratic part."""
    for other in dict.fromkeys([*literals, 1.0, 0.5, 0.1]):
        yield Candidate(
            "huber-delta",
            f"JAX's quadratic part ends at {other:g}",
            "give the same delta in JAX",
            _argument(3, other),
        )
    if operation.name == "smooth_l1_loss":
        yield Candidate(
            "huber-delta",
            "PyTorch: smooth_l1_loss; JAX: Huber's, which is that times beta",
            "divide by delta in JAX",
            lambda _, args, __: F.huber_loss(args[0], args[1], delta=args[3] if args[3:] else 1.0),
        )


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
            _argument(1, other),
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
    numbers = [x for x in operation.scalars if isinstance(x, float | int)]
    for other in dict.fromkeys([*literals, -math.inf, -1e9, -1e4, -1e30, 0.0]):
        if operation.name == "masked_fill" and numbers and other != numbers[0]:
            yield Candidate(
                "mask-value",
                f"PyTorch: {numbers[0]:g} where masked; JAX: {other:g}",
                f"mask by {numbers[0]:g} in JAX",
                lambda func, args, kwargs, value=other: torch.masked_fill(args[0], args[1], value),
            )

    def inverted(func: Any, args: Any, kwargs: Any) -> Any:
        place = 1 if operation.name == "masked_fill" else 0
        return func(*args[:place], ~args[place], *args[place + 1 :], **kwargs)

    yield Candidate(
        "mask-inverted", "JAX hides what PyTorch shows", "invert the mask in JAX", inverted
    )
    for step, hidden in ((1, False), (-1, True)):
        for fill in (hidden, not hidden):

            def moved(func: Any, args: Any, kwargs: Any, s: int = step, f: bool = fill) -> Any:
                place = 1 if operation.name == "masked_fill" else 0
                new = _shifted(args[place].clone(), s, f)
                return func(*args[:place], new, *args[place + 1 :], **kwargs)

            yield Candidate(
                "mask-diagonal",
                "JAX's mask begins at the next diagonal",
                "take PyTorch's diagonal in JAX",
                moved,
            )
    if operation.name == "masked_fill":
        yield Candidate("mask-missing", "JAX has no mask", "mask in JAX", _as(torch.clone))


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
                return candidate, {inner.number: into, outer.number: _as(torch.clone)}
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
                return candidate, {outer.number: out_of, inner.number: _as(torch.clone)}
    return None


TOGETHER.append(epsilon_place)


_ORDERS = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def _swapped(place: int) -> Together:
    def order(made: Sequence[Operation], _: Literals) -> Whole | None:
        """An activation of one term of a sum against one of the sum."""
        known = {operation.number: operation for operation in made}
        for outer in made:
            function = _ORDERS.get(outer.name.rstrip("_"))
            inner = next((known[p] for p in outer.parents if p in known), None)
            if function is None or inner is None or inner.name.rstrip("_") != "add":
                continue

            def of_term(func: Any, args: Any, kwargs: Any, act: Any = function) -> Any:
                terms = [act(x) if i == place else x for i, x in enumerate(args[:2])]
                return torch.add(*terms)

            candidate = Candidate(
                "order",
                f"PyTorch takes {outer.name} of the sum, JAX of one term",
                "take it of the sum in JAX",
                of_term,
            )
            return candidate, {inner.number: of_term, outer.number: _as(torch.clone)}
        return None

    return order


TOGETHER.extend([_swapped(0), _swapped(1)])


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
                _argument(1, weight),
            )
            yield candidate, {small.number: _argument(1, weight), large.number: _argument(1, rest)}


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


def gates(made: Sequence[Operation], literals: Literals) -> Iterator[Whole]:
    """The gates of an LSTM (i, f, g, o) or a GRU (r, z, n) stacked in another order."""
    cuts = [o for o in made if o.name in ("unsafe_split", "split", "unsafe_chunk", "chunk")]
    tanh = any(o.name == "tanh" for o in made)
    if not cuts or not tanh or not any(o.name == "sigmoid" for o in made):
        return
    for n in (3, 4):
        for order in list(itertools.permutations(range(n)))[1:]:

            def cut(func: Any, args: Any, kwargs: Any, order: Any = order, n: int = n) -> Any:
                parts = func(*args, **kwargs)
                if len(parts) != n:
                    raise ValueError
                return [parts[i] for i in order]

            candidate = Candidate(
                "gate-order",
                f"JAX has the gates in the order {order}",
                "stack the gates as PyTorch does in JAX",
                cut,
            )
            yield candidate, {o.number: cut for o in cuts}


@of("sigmoid")
def gate(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """A gate with a bias of its own, or its complement."""
    for shift in dict.fromkeys([*(x for x in literals if x and abs(x) <= 5), 1.0]):
        yield Candidate(
            "constant",
            f"JAX adds {shift:g} before the sigmoid",
            "add nothing in JAX",
            lambda _, args, __, s=shift: torch.sigmoid(args[0] + s),
        )
    yield Candidate(
        "gate-complement",
        "JAX takes 1 - the gate",
        "take the gate in JAX",
        lambda _, args, __: 1 - torch.sigmoid(args[0]),
    )


TOGETHER.extend([label_smoothing, unsmoothed, gates])
