"""What a jaxpr is made of: equations, the jaxprs inside them, and marks of layers' values."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive
from jax.interpreters import ad, batching, mlir

tag_p = Primitive("parity_tag")
"""The identity, which marks an array that goes into a layer or comes out of it."""
tag_p.def_impl(lambda value, **_: value)
tag_p.def_abstract_eval(lambda value, **_: value)
ad.deflinear2(tag_p, lambda cotangent, _, **__: [cotangent])
mlir.register_lowering(tag_p, lambda _, value, **__: [value])


def _batched(args: Sequence[Any], dims: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    """Put the mapped axis first, so that what a layer is seen to get has its batch in front."""
    (value,), (dim,) = args, dims
    return tag_p.bind(jnp.moveaxis(value, dim, 0), **params), 0


batching.primitive_batchers[tag_p] = _batched


@dataclass(frozen=True)
class Tag:
    """Which array of which call it is."""

    layer: str
    way: str
    """in or out."""
    place: int
    """Among the arrays of the call."""
    call: int = 0


def tag(value: Any, layer: str, way: str, place: int) -> Any:
    """Mark an array of a layer's call."""
    return tag_p.bind(jnp.asarray(value), layer=layer, way=way, place=place)


def inner(equation: JaxprEqn) -> list[ClosedJaxpr | Jaxpr]:
    """Return the jaxprs in an equation's parameters."""
    found = []
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else [value]:
            if isinstance(item, ClosedJaxpr | Jaxpr):
                found.append(item)
    return found


def equations(jaxpr: ClosedJaxpr | Jaxpr) -> Iterator[JaxprEqn]:
    """Yield every equation, those of inner jaxprs in their place."""
    for equation in opened(jaxpr).eqns:
        yield equation
        for sub in inner(equation):
            yield from equations(sub)


def opened(jaxpr: ClosedJaxpr | Jaxpr) -> Jaxpr:
    """Return a jaxpr without its constants."""
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr


CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr"}
CALLS |= {"checkpoint": "jaxpr", "remat": "jaxpr", "remat2": "jaxpr"}
CUSTOM = {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
LOOPS = ("scan", "while", "cond")
SAME_ARRAY = ("transpose", "convert_element_type", "copy", "copy_p", "rev", "parity_tag")


def scan_counts(equation: JaxprEqn) -> tuple[int, int]:
    """Return how many arrays a scan hands to every turn, and how many from one turn to the next.

    Those that it cuts, or stacks, have an axis more outside. Its parameters are named otherwise
    since JAX 0.11: num_consts and num_carry before, ft_in and ft_out now.
    """
    body: Any = opened(equation.params["jaxpr"])
    outside: Any = equation
    whole, carried = (
        sum(a.aval.ndim == b.aval.ndim for a, b in zip(*ways, strict=True))
        for ways in ((outside.invars, body.invars), (outside.outvars, body.outvars))
    )
    return whole - carried, carried


def is_literal(var: Any) -> bool:
    """Whether it is a number in the program."""
    return isinstance(var, Literal)


def bind(equation: JaxprEqn, given: list[Any], **changed: Any) -> list[Any]:
    """Evaluate an equation, with some of its parameters changed."""
    params = equation.primitive.get_bind_params({**equation.params, **changed})
    found = equation.primitive.bind(*given, **params)
    return list(found) if equation.primitive.multiple_results else [found]


def traced(function: Callable[..., Any], *args: Any) -> tuple[ClosedJaxpr, Any]:
    """Return a function's jaxpr and the structure of what it returns."""
    jaxpr, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    return jaxpr, shape
