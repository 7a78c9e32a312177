"""Equations that ask for less than float64: computed in it all the same, and listed."""

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from parity.pairs.jax_side.jaxprs import bind
from parity.pairs.jax_side.sources import source

NUMBERS: ContextVar[Mapping[float, float]] = ContextVar("NUMBERS")
"""Numbers of PyTorch's code, which are float64, by what they are in float32."""

_TYPES = ("new_dtype", "preferred_element_type", "dtype", "out_dtype")


def widened(
    equation: JaxprEqn, given: list[Any], _: Callable[..., list[Any]] | None = None
) -> list[Any]:
    """Evaluate an equation in float64, whatever narrower float it asks for."""
    given = [_wide(x) for x in given]
    if equation.primitive.name in ("convert_element_type", "reduce_precision"):
        target = equation.params.get("new_dtype", jnp.float64)
        if all(jnp.issubdtype(dtype, jnp.floating) for dtype in (given[0].dtype, target)):
            return given
    changed = {key: jnp.dtype(jnp.float64) for key in _TYPES if _narrow(equation.params.get(key))}
    return bind(equation, given, **changed)


def _wide(value: Any) -> Any:
    if not _narrow(getattr(value, "dtype", None)):
        return value
    if isinstance(value, np.generic | np.ndarray) and value.ndim == 0:
        # a number in the code, 1e-5 and not the nearest float32; JAX's literals are ndarrays
        number = np.asarray(value)[()]
        return jnp.asarray(NUMBERS.get({}).get(float(number), float(str(number))), jnp.float64)
    return jnp.asarray(value, jnp.float64)


def in_float32(numbers: Iterable[Any]) -> dict[float, float]:
    """Return numbers, of either sign, by what they are in float32."""
    floats = {x for x in numbers if isinstance(x, float) and abs(x) < 1e38}
    return {float(np.float32(x)): x for number in floats for x in (number, -number)}


def narrow_types(found: Iterable[JaxprEqn]) -> dict[str, str]:
    """Return the floats narrower than float64 that equations give, by file and line."""
    types = {}
    for equation in found:
        for var in equation.outvars:
            dtype = getattr(var.aval, "dtype", None)
            if _narrow(dtype):
                types.setdefault(source(equation), str(dtype))
    return types


def narrow(found: Iterable[JaxprEqn]) -> set[str]:
    """Return the floats narrower than float64 that equations give."""
    types = {getattr(var.aval, "dtype", None) for equation in found for var in equation.outvars}
    return {str(dtype) for dtype in types if _narrow(dtype)}


def _narrow(dtype: Any) -> bool:
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype != jnp.float64
