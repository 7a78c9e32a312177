"""A jaxpr, evaluated equation by equation: layers' values are seen and replaced, casts left out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from parity.pairs.jax_side.jaxprs import (
    CALLS,
    CUSTOM,
    LOOPS,
    SAME_ARRAY,
    Tag,
    bind,
    equations,
    inner,
    is_literal,
    opened,
    scan_counts,
    tag_p,
)

BLOCK = 16
"""Equations that are evaluated at a time."""

Values = dict[Any, Any]
"""Arrays, or tracers, by a jaxpr's variable."""
Block = Callable[[Callable[[Values], Values], Values], Values]
"""(what evaluates some equations, as often as it is called; their inputs) → their results."""


@dataclass
class Evaluator:
    """Evaluates a jaxpr on arrays, or on tracers; it can be used once."""

    on_tag: Callable[[Tag, Any], Any] = lambda _, value: value
    """What a tagged array is replaced by."""
    around: Callable[[JaxprEqn, list[Any], Callable[..., list[Any]]], list[Any]] | None = None
    """(equation, inputs, what evaluates it on inputs) → outputs, for every equation that is no
    call; with it, all calls and loops are evaluated equation by equation, too."""
    products: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    """Leaves whose product with something is a layer: its name, and the leaf that is added; with
    some, loops are evaluated equation by equation, too."""
    leaves: Sequence[str] = ()
    """Names of the first arguments, where there are `products`."""
    stack: Callable[[Sequence[Any]], Any] = jnp.stack
    """What makes one array of a loop's results."""
    linked: Callable[[Any, Sequence[Any]], None] = lambda *_: None
    """Told of an array that a loop cuts out of others, or stacks of them, or a branch returns."""
    block: Block = lambda run, values: run(values)
    """How BLOCK equations of the program are run."""
    callers: list[JaxprEqn] = field(default_factory=list)
    """The calls and loops that are being evaluated, innermost last."""
    _calls: dict[tuple[str, str, int], int] = field(default_factory=dict)
    _names: dict[int, tuple[str, Any]] = field(default_factory=dict)
    _unbiased: dict[int, tuple[str, Any]] = field(default_factory=dict)
    """Values that are known by name, or lack the bias of a layer, by identity; they are held."""

    def __call__(self, jaxpr: ClosedJaxpr, *args: Any) -> list[Any]:
        if self.products:
            named = zip(self.leaves, args, strict=False)
            self._names.update((id(x), (name, x)) for name, x in named)
        return self._run(jaxpr, args)

    def _run(self, program: ClosedJaxpr | Jaxpr, args: Sequence[Any]) -> list[Any]:
        jaxpr, consts = opened(program), getattr(program, "consts", ())
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, args, strict=True))
        last = {v: n for n, e in enumerate(jaxpr.eqns) for v in e.invars if not is_literal(v)}
        last.update((var, len(jaxpr.eqns)) for var in jaxpr.outvars if not is_literal(var))

        if self.callers:
            self._evaluate(jaxpr.eqns, range(len(jaxpr.eqns)), last, values)
        else:
            for start in range(0, len(jaxpr.eqns), BLOCK):
                self._some(jaxpr.eqns[start : start + BLOCK], start, last, values)
        return [_read(var, values) for var in jaxpr.outvars]

    def _some(
        self, equations: Sequence[JaxprEqn], start: int, last: Mapping[Any, int], values: Values
    ) -> None:
        """Evaluate some equations of the program, and put what later ones need among the values."""
        numbers = range(start, start + len(equations))
        used = {v: None for e in equations for v in e.invars if not is_literal(v) and v in values}
        made = [v for e in equations for v in e.outvars if last.get(v, -1) >= numbers.stop]
        calls, tables = dict(self._calls), (self._names, self._unbiased)
        known = [(table, v, table[id(values[v])][0]) for table in tables for v in used
                 if id(values[v]) in table]  # fmt: skip

        def run(given: Values) -> Values:
            self._calls = dict(calls)
            for table, var, name in known:
                table[id(given[var])] = (name, given[var])
            inside = dict(given)
            self._evaluate(equations, numbers, last, inside)
            return {var: inside[var] for var in made}

        found = self.block(run, {var: values[var] for var in used})
        for var in used:
            if last[var] < numbers.stop:
                del values[var]
        values.update(found)

    def _evaluate(
        self, equations: Sequence[JaxprEqn], numbers: range, last: Mapping[Any, int], values: Values
    ) -> None:
        for number, equation in zip(numbers, equations, strict=True):
            given = [_read(var, values) for var in equation.invars]
            for var in {v for v in equation.invars if not is_literal(v)}:
                if last[var] == number:
                    del values[var]
            values.update(zip(equation.outvars, self._equation(equation, given), strict=True))

    def _equation(self, equation: JaxprEqn, given: list[Any]) -> list[Any]:
        name = equation.primitive.name
        if equation.primitive is tag_p:
            params = equation.params
            return [self._seen(params["layer"], params["way"], params["place"], given[0])]
        deep = self.around is not None or (bool(self.products) and name in LOOPS)
        known = name in {**CALLS, **CUSTOM} or name in LOOPS
        if known and inner(equation) and (deep or name in CALLS or _has_tags(equation)):
            self.callers.append(equation)
            made = self._called(equation, given)
            self.callers.pop()
            return made
        if self.products:
            return self._product(equation, given)
        return self._plain(equation, given)

    def _called(self, equation: JaxprEqn, given: list[Any]) -> list[Any]:
        name = equation.primitive.name
        if name in LOOPS:
            return getattr(self, f"_{name}")(equation, given)
        return self._run(equation.params[{**CALLS, **CUSTOM}[name]], given)

    def _seen(self, layer: str, way: str, place: int, value: Any) -> Any:
        call = self._calls.get((layer, way, place), 0)
        self._calls[layer, way, place] = call + 1
        return self.on_tag(Tag(layer, way, place, call), value)

    def _plain(self, equation: JaxprEqn, given: list[Any]) -> list[Any]:
        if self.around is None:
            return bind(equation, given)
        return self.around(equation, given, lambda *inputs: bind(equation, list(inputs)))

    def _product(self, equation: JaxprEqn, given: list[Any]) -> list[Any]:
        """Evaluate an equation; a leaf's product, and what is added to it, is seen as a layer."""
        names = [self._names.get(id(x), ("", None))[0] for x in given]
        kind = equation.primitive.name
        if kind in (*SAME_ARRAY, "reshape", "broadcast_in_dim", "squeeze", "expand_dims"):
            out = self._plain(equation, given)
            for table in (self._names, self._unbiased):
                if id(given[0]) in table:
                    table[id(out[0])] = (table[id(given[0])][0], out[0])
            return out
        if kind in ("dot_general", "conv_general_dilated", "gather"):
            place = next((i for i, name in enumerate(names[:2]) if name in self.products), None)
            if place is not None and not names[1 - place]:
                layer, bias = self.products[names[place]]
                if kind != "gather":
                    given[1 - place] = self._seen(layer, "in", 0, given[1 - place])
                out = self._plain(equation, given)
                if bias is None:
                    return [self._seen(layer, "out", 0, out[0])]
                self._unbiased[id(out[0])] = (layer, out[0])
                return out
        if kind in ("add", "add_any"):
            layers = [self._unbiased.get(id(x), ("", None))[0] for x in given]
            for layer, other in ((layers[0], names[1]), (layers[1], names[0])):
                if layer and other and (layer, other) in self.products.values():
                    return [self._seen(layer, "out", 0, self._plain(equation, given)[0])]
        return self._plain(equation, given)

    def _scan(self, equation: JaxprEqn, given: list[Any]) -> list[Any]:
        params, (consts, carried) = equation.params, scan_counts(equation)
        fixed, carry = given[:consts], given[consts : consts + carried]
        rows = given[consts + carried :]
        jaxpr, length = params["jaxpr"], params["length"]
        outputs: list[list[Any]] = []
        order = range(length)[::-1] if params["reverse"] else range(length)
        for step in order:
            cut = [row[step] for row in rows]
            for part, row in zip(cut, rows, strict=True):
                self.linked(part, [row])
            found = self._run(jaxpr, [*fixed, *carry, *cut])
            carry = found[:carried]
            outputs.append(found[carried:])
        if params["reverse"]:
            outputs.reverse()
        body: Any = opened(jaxpr)
        shapes = [var.aval for var in body.outvars[carried:]]
        if not length:
            return [*carry, *(jnp.zeros((0, *s.shape), s.dtype) for s in shapes)]
        stacked = [self.stack(parts) for parts in zip(*outputs, strict=True)]
        for whole, parts in zip(stacked, zip(*outputs, strict=True), strict=True):
            self.linked(whole, parts)
        return [*carry, *stacked]

    def _while(self, equation: JaxprEqn, given: list[Any]) -> list[Any]:
        params = equation.params
        of_cond, of_body = params["cond_nconsts"], params["body_nconsts"]
        for_cond, for_body = given[:of_cond], given[of_cond : of_cond + of_body]
        carry = given[of_cond + of_body :]
        cond, body = params["cond_jaxpr"], params["body_jaxpr"]
        while bool(self._run(cond, [*for_cond, *carry])[0]):
            carry = self._run(body, [*for_body, *carry])
        return carry

    def _cond(self, equation: JaxprEqn, given: list[Any]) -> list[Any]:
        branches = equation.params["branches"]
        branch = branches[int(np.clip(int(given[0]), 0, len(branches) - 1))]
        made = self._run(branch, given[1:])
        for value in made:
            self.linked(value, [value, given[0]])
        return made


def _has_tags(equation: JaxprEqn) -> bool:
    return any(found.primitive is tag_p for sub in inner(equation) for found in equations(sub))


def _read(var: Any, values: Values) -> Any:
    return var.val if is_literal(var) else values[var]
