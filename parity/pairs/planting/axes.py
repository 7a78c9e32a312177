"""Mistakes in axes, parts and their order; products in low precision."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from parity.pairs.planting.sites import Mistake, Site, of, shape_of


def _swapped(array: Any, first: int, second: int) -> Any:
    return jnp.swapaxes(array, first, second)


@of("dot_general")
def _transposed(site: Site) -> Iterator[Mistake]:
    """Contract another axis of the same length; a parameter's would be another map."""
    contract, batch = site.params["dimension_numbers"]
    for place in (0, 1):
        shape, axes = site.shape(place), contract[place]
        free = [a for a in range(len(shape)) if a not in (*axes, *batch[place])]
        same = [a for a in free if len(axes) == 1 and shape[a] == shape[axes[0]] > 1]
        if same and not site.leaf(place):

            def turned(
                *x: Any, place: int = place, other: int = same[0], own: int = axes[0]
            ) -> list[Any]:
                given = list(x)
                given[place] = _swapped(given[place], own, other)
                return site.compute(given)

            yield "transposed", turned


@of("dot_general", "conv_general_dilated")
def _bfloat16(site: Site) -> Iterator[Mistake]:
    if site.is_float(0) and site.is_float(1):
        yield "low-precision", lambda *x: site.compute([_rounded(x[0]), _rounded(x[1])])


def _rounded(array: Any) -> Any:
    return lax.reduce_precision(array, exponent_bits=8, mantissa_bits=7)


@of("reduce_sum")
def _axis(site: Site) -> Iterator[Mistake]:
    """Sum over another axis of the same length."""
    axes, shape = site.params["axes"], site.shape(0)
    if len(axes) != 1 or not site.is_float():
        return
    same = [a for a in range(len(shape)) if a not in axes and shape[a] == shape[axes[0]] > 1]
    if same:
        yield "axis", lambda x: site.compute([_swapped(x, axes[0], same[0])])


@of("iota")
def _positions(site: Site) -> Iterator[Mistake]:
    """Count from one."""
    if not jnp.issubdtype(site.params["dtype"], jnp.bool_) and max(site.params["shape"]) > 1:
        yield "position-offset", lambda: [site.compute([])[0] + 1]


@of("concatenate", "split")
def _order(site: Site) -> Iterator[Mistake]:
    """Take equal parts in the other order."""
    joins = site.equation.primitive.name == "concatenate"
    parts = site.equation.invars if joins else site.equation.outvars
    if len(parts) >= 2 and len({shape_of(var) for var in parts}) == 1:
        if joins:
            yield "order", lambda *x: site.compute(list(x[::-1]))
        else:
            yield "order", lambda x: site.compute([x])[::-1]


@of("slice")
def _part(site: Site) -> Iterator[Mistake]:
    """Take the part behind, or in front if there is none."""
    starts, limits = site.params["start_indices"], site.params["limit_indices"]
    shape, strides = site.shape(0), site.params["strides"]
    cut = [a for a in range(len(shape)) if limits[a] - starts[a] < shape[a]]
    if len(cut) != 1 or (strides and strides[cut[0]] > 1):
        return
    (axis,) = cut
    length = limits[axis] - starts[axis]
    if not length:
        return
    for step in (length, -length, 1, -1):
        if starts[axis] + step >= 0 and limits[axis] + step <= shape[axis]:

            def behind(x: Any, step: int = step) -> list[Any]:
                moved = [step if a == axis else 0 for a in range(len(shape))]
                return site.compute(
                    [x],
                    start_indices=tuple(map(sum, zip(starts, moved, strict=True))),
                    limit_indices=tuple(map(sum, zip(limits, moved, strict=True))),
                )

            yield "order", behind
            return


@of("transpose")
def _axes(site: Site) -> Iterator[Mistake]:
    """Swap two axes of the same length; a parameter's would be another map."""
    shape = site.made
    for a, b in itertools.combinations(range(len(shape)), 2):
        if shape[a] == shape[b] > 1 and not site.leaf(0):
            yield "axis", lambda x, a=a, b=b: [_swapped(site.compute([x])[0], a, b)]
            return


@of("reshape")
def _flattened(site: Site) -> Iterator[Mistake]:
    """Merge, or split, axes in the other order: (h d) for (d h)."""
    before, after = site.shape(0), site.made
    if site.leaf(0) or 0 in before:
        return
    for rows, columns in _groups(before, after):
        many, one = (rows, columns) if len(rows) > len(columns) else (columns, rows)
        long = before if many is rows else after
        wide = [axis for axis in many if long[axis] > 1]
        if len(wide) < 2 or len(one) != 1:
            continue
        if many is rows:
            order = list(range(len(before)))
            for own, other in zip(rows, rows[::-1], strict=True):
                order[own] = other
            yield "flatten-order", lambda x, o=order: [x.transpose(o).reshape(after)]
        else:
            lengths = [after[axis] for axis in columns]
            middle = (*after[: columns[0]], *lengths[::-1], *after[columns[-1] + 1 :])
            order = list(range(len(after)))
            for own, other in zip(columns, columns[::-1], strict=True):
                order[own] = other
            yield "flatten-order", lambda x, m=middle, o=order: [x.reshape(m).transpose(o)]


def _groups(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the axes of a reshape that become one another."""
    i = j = 0
    while i < len(before) and j < len(after):
        rows, columns, a, b = [i], [j], before[i], after[j]
        while a != b:
            if a < b:
                i += 1
                rows.append(i)
                a *= before[i]
            else:
                j += 1
                columns.append(j)
                b *= after[j]
        yield rows, columns
        i, j = i + 1, j + 1


@of("gather")
def _index(site: Site) -> Iterator[Mistake]:
    """Look up one row before: labels or tokens that are shifted."""
    if math.prod(site.shape(1)) > 1:
        yield "index", lambda x, i: site.compute([x, jnp.where(i > 0, i - 1, i)])
