"""Stochastic arithmetic on a jaxpr: the random error of one equation that ran in float64."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core.primitives as lax_primitives
import jax.numpy as jnp
import numpy as np

from parity.pairs.rounding import arithmetic

Arrays = Sequence[Any]
Params = Mapping[str, Any]

_EXACT = """
abs and approx_top_k argmax argmin bitcast_convert_type broadcast_in_dim ceil clamp clz complex
concatenate conj copy copy_p cummax cummin device_put dynamic_slice dynamic_update_slice empty
empty2 eq eq_to expand_dims floor gather ge gt imag iota is_finite le le_to lt lt_to max min
name ne neg nextafter not optimization_barrier or pad pmax pmin population_count random_bits
random_fold_in random_seed random_split random_unwrap random_wrap real reduce_and reduce_max
reduce_min reduce_or reduce_precision reduce_window_max reduce_window_min reduce_xor rem reshape
rev rng_bit_generator rng_uniform round scatter scatter_max scatter_min select_and_gather_add
select_n shift_left shift_right_arithmetic shift_right_logical sign slice sort split squeeze
stop_gradient threefry2x32 tile top_k transpose xor
"""
EXACT = frozenset(_EXACT.split())
"""Primitives that move, choose or compare numbers."""


def perturbed(
    primitive: str,
    params: Params,
    inputs: Arrays,
    outputs: Arrays,
    *,
    unit: float,
    rng: np.random.Generator,
) -> list[Any]:
    """Return the outputs of one equation with a random error of precision `unit`.

    Inputs and outputs are concrete arrays, the outputs those of float64. An output that a
    narrower float holds gets that float's error, if it is larger.
    """
    spreads = spread(primitive, params, inputs, outputs, unit=unit)
    return shaken(outputs, spreads, rng)


def shaken(outputs: Arrays, spreads: Sequence[Any], rng: np.random.Generator) -> list[Any]:
    """Return the outputs, each with an error of its σ from `spread`."""
    moved = []
    for output, sigma in zip(outputs, spreads, strict=True):
        if sigma is None:
            moved.append(output)
            continue
        with jax.enable_x64(True):
            values = arithmetic.shaken(np.asarray(output), sigma, rng)
            moved.append(jnp.asarray(values))
    return moved


def spread(
    primitive: str, params: Params, inputs: Arrays, outputs: Arrays, *, unit: float
) -> list[np.ndarray | None]:
    """Return σ of each output of one equation, None where it is exact.

    To first order it is the same in each sample: whoever runs the samples side by side computes
    it once, from the unperturbed values.
    """
    if primitive in EXACT:
        return [None] * len(outputs)
    if primitive == "convert_element_type":
        return [_cast(params, inputs[0], unit)]
    rule = _RULES.get(primitive, _elementwise)
    found: list[np.ndarray | None] = []
    for output in outputs:
        if not jnp.issubdtype(output.dtype, jnp.inexact):
            found.append(None)
            continue
        own = arithmetic.UNITS.get(str(output.dtype), 0.0)
        coarse = max(unit, 2 * own)  # a float32 result cannot move by less than an ulp
        with jax.enable_x64(True):
            found.append(np.asarray(rule(primitive, params, inputs, output, coarse)))
    return found


def _elementwise(name: str, params: Params, inputs: Arrays, output: Any, unit: float) -> np.ndarray:
    del params
    arguments = [np.asarray(value) for value in inputs]
    return arithmetic.relative_spread(name, np.asarray(output), arguments, unit)


def _cast(params: Params, source: Any, unit: float) -> np.ndarray | None:
    """σ of a cast: none where it widens, or where the narrower float holds the number."""
    name = str(np.dtype(params["new_dtype"]))
    own = arithmetic.UNITS.get(name, 0.0)
    if not jnp.issubdtype(source.dtype, jnp.floating) or own <= unit / 2:
        return None
    if own <= arithmetic.UNITS.get(str(source.dtype), 0.0):
        return None
    values = np.asarray(source).astype(np.float64)
    return 2 * own * np.abs(values) * arithmetic.inexact(values, own)


def _bind(primitive: str, operands: Arrays, params: Params) -> np.ndarray:
    bound = getattr(lax_primitives, f"{primitive.replace('-', '_')}_p")
    result = bound.bind(*operands, **params)
    return np.asarray(result[0] if isinstance(result, list | tuple) else result, np.float64)


def _squared(value: Any) -> Any:
    return jnp.asarray(np.square(np.abs(np.asarray(value).astype(np.float64))))


def _product(name: str, params: Params, inputs: Arrays, output: Any, unit: float) -> np.ndarray:
    """σ of a matrix product or convolution, by the same one of squares.

    They are computed in float32, in which σ is precise enough, scaled so that none overflows.
    """
    plain = {"preferred_element_type": None, "precision": None, "out_sharding": None}
    params = {**params, **{key: value for key, value in plain.items() if key in params}}
    scale, operands = 1.0, []
    for value in inputs:
        size = np.abs(np.asarray(value).astype(np.float64))
        largest = float(np.max(size, initial=0.0, where=np.isfinite(size))) or 1.0
        scale *= largest**2
        operands.append(jnp.asarray(np.square(size / largest).astype(np.float32)))
    squares = _bind(name, operands, params) * scale
    if name == "dot_general":
        (left, _), _ = params["dimension_numbers"]
        count = math.prod(inputs[0].shape[axis] for axis in left)
    else:
        features = inputs[1].shape[params["dimension_numbers"].rhs_spec[0]]
        count = inputs[1].size / features / math.prod(params["lhs_dilation"])
    return arithmetic.product_spread(squares, np.abs(np.asarray(output)), max(1.0, count), unit)


def _sum(name: str, params: Params, inputs: Arrays, output: Any, unit: float) -> np.ndarray:
    squares = _bind(name, [_squared(inputs[0])], params)
    if name == "cumsum":
        count = inputs[0].shape[params["axis"]]
    elif name == "reduce_window_sum":
        count = math.prod(params["window_dimensions"])
    else:
        count = inputs[0].size / max(1, output.size)
    return arithmetic.sum_spread(squares, np.abs(np.asarray(output)), count, unit)


def _scatter(name: str, params: Params, inputs: Arrays, output: Any, unit: float) -> np.ndarray:
    """σ of x[i] += u: none where nothing is added."""
    operand, indices, updates = inputs
    squares = _bind(name, [_squared(operand), indices, _squared(updates)], params)
    ones = [jnp.zeros(operand.shape, float), indices, jnp.ones(updates.shape, float)]
    count = _bind(name, ones, params)
    sigma = arithmetic.product_spread(squares, np.abs(np.asarray(output)), 1.0, unit)
    return sigma * np.sqrt(count)


def _pool_gradient(
    name: str, params: Params, inputs: Arrays, output: Any, unit: float
) -> np.ndarray:
    squares = _bind(name, [_squared(inputs[0]), inputs[1]], params)
    count = math.prod(params["window_dimensions"])
    return arithmetic.sum_spread(squares, np.abs(np.asarray(output)), count, unit)


def _factors(name: str, params: Params, inputs: Arrays, output: Any, unit: float) -> np.ndarray:
    """σ of products of n factors: √n units."""
    axes = params["axes"] if name == "reduce_prod" else (params["axis"],)
    count = math.prod(inputs[0].shape[axis] for axis in axes)
    return unit * math.sqrt(count) * np.abs(np.asarray(output))


def _horner(name: str, params: Params, inputs: Arrays, output: Any, unit: float) -> np.ndarray:
    """σ of Horner's rule: each product and each sum is rounded, and passed on times x."""
    del name, params
    x, *coefficients = (np.asarray(value) for value in inputs)
    value, variance = coefficients.pop(), np.zeros(output.shape)
    for coefficient in reversed(coefficients):
        product = value * x
        value = product + coefficient
        variance = variance * np.abs(x) ** 2 + np.abs(product) ** 2 + np.abs(value) ** 2
    return unit * np.sqrt(variance)


_RULES: dict[str, Callable[[str, Params, Arrays, Any, float], np.ndarray]] = {
    **dict.fromkeys(("dot_general", "conv_general_dilated"), _product),
    **dict.fromkeys(("reduce_sum", "cumsum", "reduce_window_sum"), _sum),
    **dict.fromkeys(("reduce_prod", "cumprod"), _factors),
    "scatter-add": _scatter,
    "select_and_scatter_add": _pool_gradient,
    "polynomial": _horner,
    **dict.fromkeys(("exp2", "erfc"), _elementwise),
}
