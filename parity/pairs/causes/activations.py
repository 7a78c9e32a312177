"""Causes in activations: another one, another constant, another place."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from parity.pairs.causes.candidates import (
    Candidate,
    Literals,
    Together,
    Whole,
    applied,
    argument,
    of,
    parents,
)
from parity.pairs.torch_side.operations import Operation


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

_MADE_BY = {
    "relu squared": ("max", "square|integer_pow|mul|pow"),
    **dict.fromkeys(("relu", "relu6", "hardswish", "hardsigmoid"), ("max|clamp|select_n",)),
    **dict.fromkeys(("softmax", "log_softmax"), ("reduce_sum",)),
    **dict.fromkeys(("tanh", "mish", "gelu (tanh)"), ("tanh|exp",)),
    **dict.fromkeys(("sigmoid", "silu", "quick gelu"), ("logistic|exp",)),
}
"""The primitives of JAX that some of them are made of."""
ADDED = tuple(
    Candidate(
        "added",
        f"JAX applies {name} where PyTorch has nothing",
        f"leave {name} out in JAX",
        applied(function),
        needs=_MADE_BY.get(name, ()),
    )
    for name, function in {
        "softmax": lambda x: x.softmax(-1),
        "log_softmax": lambda x: x.log_softmax(-1),
        **_ACTIVATIONS,
    }.items()
    if name != "no activation"
)
"""What JAX computes at a region's end besides; losses often take a softmax already."""


def clipped(literals: Literals) -> Iterator[Candidate]:
    """Yield limits that JAX sets at a region's end, of the numbers in its code."""
    finite = sorted({x for x in literals if math.isfinite(x)})
    for low, high in itertools.combinations([-math.inf, *finite, math.inf], 2):
        if math.isfinite(low) or math.isfinite(high):
            yield Candidate(
                "clip",
                f"JAX clips to [{low:g}, {high:g}] where PyTorch does not",
                "clip on both sides, or on neither",
                applied(lambda x, a=low, b=high: x.clamp(a, b)),
            )


def written_out(layer: str) -> Iterator[Candidate]:
    """Yield what JAX may compute of a layer's output where PyTorch computes something else."""
    for name, function in _ACTIVATIONS.items():
        yield Candidate(
            "activation",
            f"JAX computes {name} of what goes out of {layer}, PyTorch another function",
            "compute PyTorch's function in JAX",
            applied(function),
        )


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
                    argument(place + 1, other),
                )


@of("sigmoid")
def gate(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """A gate with a bias of its own, or its complement; before `activation`, which is long."""
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
                applied(function),
            )


_ORDERS = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def of_one_term(place: int) -> Together:
    """Return the rule that takes an activation of one term of a sum only."""

    def order(made: Sequence[Operation], _: Literals) -> Whole | None:
        """An activation of one term of a sum against one of the sum."""
        known = {operation.number: operation for operation in made}
        for outer in made:
            function = _ORDERS.get(outer.name.rstrip("_"))
            inner = next(filter(None, parents(outer, known)), None)
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
            return candidate, {inner.number: of_term, outer.number: applied(torch.clone)}
        return None

    return order
