"""Mistakes in numbers: activations, epsilon, factors, terms that are left out, masks."""

import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

from parity.pairs.jax_side.jaxprs import is_literal
from parity.pairs.planting.sites import Mistake, Site, number_of, of, shape_of


@of("erf", "erfc")
def _gelu(site: Site) -> Iterator[Mistake]:
    """Plant the tanh approximation: erf(z/√2) ≈ tanh(√(2/π) (z + 0.044715 z³))."""
    sign = -1 if site.equation.primitive.name == "erfc" else 1

    def tanh(x: Any) -> list[Any]:
        z = math.sqrt(2) * x
        found = jnp.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))
        return [found if sign == 1 else 1 - found]

    yield "gelu-tanh", tanh


@of("logistic")
def _sigmoid(_: Site) -> Iterator[Mistake]:
    yield "activation", lambda x: [jnp.clip(x / 6 + 0.5, 0, 1)]


@of("max")
def _relu(site: Site) -> Iterator[Mistake]:
    for place in (0, 1):
        if site.number(place) == 0 and site.is_float() and not _variance(site.before(1 - place)):
            yield "activation", lambda *x, p=1 - place: [jnp.where(x[p] > 0, x[p], 0.01 * x[p])]


def _variance(before: JaxprEqn | None) -> bool:
    """Whether it is E[x²] − E[x]², which is kept from falling below zero."""
    return before is not None and before.primitive.name == "sub"


@of("max", "min", "clamp")
def _unclipped(site: Site) -> Iterator[Mistake]:
    """Leave a limit out."""
    if not site.is_float():
        return
    if site.equation.primitive.name == "clamp":
        yield "clip", lambda _, x, __: [x]
        return
    for place in (0, 1):
        if site.number(place) not in (None, 0, math.inf, -math.inf):
            yield "clip", lambda *x, p=1 - place: [x[p]]


@of("add")
def _epsilon(site: Site) -> Iterator[Mistake]:
    for place in (0, 1):
        epsilon = site.number(place)
        if epsilon is not None and 0 < epsilon <= 1e-2 and site.is_float():
            yield "epsilon", lambda *x, p=1 - place, e=epsilon: [x[p] + 10 * e]


@of("rsqrt", "sqrt")
def _epsilon_place(site: Site) -> Iterator[Mistake]:
    """Add epsilon outside the root."""
    before = site.before()
    if before is None or before.primitive.name != "add":
        return
    inverse = site.equation.primitive.name == "rsqrt"
    for epsilon in map(number_of, before.invars):
        if epsilon is not None and 0 < epsilon <= 1e-2:

            def outside(x: Any, e: float = epsilon) -> list[Any]:
                root = jnp.sqrt(jnp.maximum(x - e, 0)) + e
                return [1 / root if inverse else root]

            yield "epsilon-place", outside


@of("mul", "div")
def _factor(site: Site) -> Iterator[Mistake]:
    """Leave a factor out; count one too few in a mean, as in an unbiased variance."""
    divides = site.equation.primitive.name == "div"
    for place in (1,) if divides else (0, 1):
        factor = site.number(place)
        if factor is None or factor in (0, 1, -1) or not math.isfinite(factor):
            continue
        if not site.is_float():
            continue
        if divides and factor >= 3 and factor == int(factor):
            yield "variance-unbiased", lambda x, _, n=factor: [x / (n - 1)]
        else:
            yield "scale", lambda *x, p=1 - place: [x[p]]


@of("pow")
def _base(site: Site) -> Iterator[Mistake]:
    base = site.number(0)
    if base is not None and base > 1:
        yield "rope-base", lambda _, x: [(10 * base) ** x]


@of("add", "add_any", "mul")
def _term(site: Site) -> Iterator[Mistake]:
    """Leave out a bias or a scale, the smaller term; of two alike, the first."""
    if is_literal(site.equation.invars[0]) or is_literal(site.equation.invars[1]):
        return
    if not site.is_float():
        return
    leaves = [site.leaf(place) for place in (0, 1)]
    shape = site.made
    if any(leaves):
        left_out = leaves.index(True)
    elif site.equation.primitive.name == "mul":
        return
    else:
        made = [_size_before(site, place) for place in (0, 1)]
        left_out = made.index(min(made))
    name = "bias-missing" if leaves[left_out] else "residual"
    name = "scale" if site.equation.primitive.name == "mul" else name
    kept = 1 - left_out
    yield name, lambda *x: [jnp.broadcast_to(x[kept], shape)]


def _size_before(site: Site, place: int) -> int:
    """Return the size of an input before it was broadcast."""
    before = site.before(place)
    if before is not None and before.primitive.name == "broadcast_in_dim":
        return math.prod(shape_of(before.invars[0]))
    return math.prod(site.shape(place))


@of("neg")
def _sign(site: Site) -> Iterator[Mistake]:
    if site.is_float():
        yield "sign", lambda x: [x]


@of("cos", "sin")
def _quarter_turn(site: Site) -> Iterator[Mistake]:
    other = jnp.sin if site.equation.primitive.name == "cos" else jnp.cos
    yield "sin-cos", lambda x: [other(x)]


@of("select_n")
def _masked(site: Site) -> Iterator[Mistake]:
    """Leave a mask out: the case that varies, everywhere."""
    if len(site.equation.invars) != 3 or not site.is_float(1) or not site.shape(1):
        return
    if site.program.guarded(site.equation) is not None:
        return
    cases = [site.program.origin(var) for var in site.equation.invars[1:]]
    asked = site.before()
    if asked is not None and any(site.program.origin(v) in cases for v in _variables(asked)):
        return  # a value that is chosen by itself, as inside elu, lest a gradient be nan
    sizes = [0 if is_literal(v) else _size_before(site, p + 1) for p, v in
             enumerate(site.equation.invars[1:])]  # fmt: skip
    if min(sizes) <= 1 < max(sizes):
        yield "mask-missing", lambda *x: [x[1 + sizes.index(max(sizes))]]


def _variables(equation: JaxprEqn) -> list[Any]:
    return [var for var in equation.invars if not is_literal(var)]


@of("lt", "le", "gt", "ge")
def _diagonal(site: Site) -> Iterator[Mistake]:
    """Count a mask's boundary to the other side."""
    name = site.equation.primitive.name
    other = {"lt": lax.le, "le": lax.lt, "gt": lax.ge, "ge": lax.gt}[name]
    if len(site.made) >= 2 and not site.is_float():
        yield "mask-diagonal", lambda a, b: [other(*jnp.broadcast_arrays(a, b))]
