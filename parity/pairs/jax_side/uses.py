"""Where a program first uses each leaf, and how; and what its results depend on."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from parity.pairs.jax_side.jaxprs import (
    SAME_ARRAY,
    equations,
    inner,
    is_literal,
    opened,
    scan_counts,
)
from parity.pairs.mapping.leaves import Stack, Use


def uses(jaxpr: ClosedJaxpr, names: Sequence[str]) -> dict[str, Use]:
    """Return the first use of each of the first arguments, by name; none for what is not used."""
    found: dict[str, Use] = {}
    count = itertools.count()

    def visit(body: Jaxpr, known: dict[Any, tuple[str, tuple[int, ...]]]) -> dict[Any, Any]:
        for equation in body.eqns:
            number = next(count)
            given = [None if is_literal(var) else known.get(var) for var in equation.invars]
            if not any(given):
                continue
            name = equation.primitive.name
            if name in SAME_ARRAY:
                label, axes = given[0] or ("", ())
                order = equation.params["permutation"] if name == "transpose" else range(len(axes))
                known[equation.outvars[0]] = (label, tuple(axes[axis] for axis in order))
                continue
            if name in ("split", "slice") and given[0]:
                for var in equation.outvars:
                    known[var] = given[0]
                continue
            subs = inner(equation)
            if subs:
                stacked = _scanned(equation, given)
                for sub in subs:
                    body_vars = opened(sub).invars
                    aligned = zip(body_vars, given[len(given) - len(body_vars) :], strict=False)
                    visit(opened(sub), {var: what for var, what in aligned if what})
                for label in stacked:
                    use = found.get(label)
                    if use is not None and use.order > number:  # it is first used in the scan
                        stack = Stack(equation.params["length"], number, next(count) - number)
                        found[label] = dataclasses.replace(use, stack=stack)
                continue
            for place, what in enumerate(given):
                if what and what[0] not in found:
                    found[what[0]] = Use(number, _told_axes(equation, place, what[1]))
        return known

    pairs = zip(jaxpr.jaxpr.invars, names, strict=False)
    start = {var: (name, tuple(range(var.aval.ndim))) for var, name in pairs}
    visit(jaxpr.jaxpr, start)
    for var in jaxpr.jaxpr.outvars:
        if not is_literal(var) and var in start:
            found.setdefault(start[var][0], Use(next(count)))
    return found


def live(jaxpr: ClosedJaxpr) -> list[JaxprEqn]:
    """Return the equations that results depend on; of a call, or a loop, all inner ones."""
    needed = {var for var in jaxpr.jaxpr.outvars if not is_literal(var)}
    found = []
    for equation in reversed(jaxpr.jaxpr.eqns):
        if needed.intersection(equation.outvars):
            needed.update(var for var in equation.invars if not is_literal(var))
            found += [equation, *(made for sub in inner(equation) for made in equations(sub))]
    return found


def _scanned(equation: JaxprEqn, given: list[Any]) -> list[str]:
    """Return the leaves that a scan takes a slice of in each turn, and take that axis off them."""
    if equation.primitive.name != "scan":
        return []
    first = sum(scan_counts(equation))
    labels = []
    for place, what in list(enumerate(given))[first:]:
        if what:
            given[place] = what[0], what[1][1:]
            labels.append(what[0])
    return labels


def _told_axes(
    equation: JaxprEqn, place: int, axes: tuple[int, ...]
) -> tuple[tuple[int, ...], ...] | None:
    if equation.primitive.name == "dot_general":
        contracted = equation.params["dimension_numbers"][0][place]
        batch = equation.params["dimension_numbers"][1][place]
        if batch:
            return None
        out = tuple(axes[axis] for axis in range(len(axes)) if axis not in contracted)
        return out, tuple(axes[axis] for axis in sorted(contracted))
    if equation.primitive.name == "conv_general_dilated" and place == 1:
        return tuple((axes[axis],) for axis in equation.params["dimension_numbers"].rhs_spec)
    return None
