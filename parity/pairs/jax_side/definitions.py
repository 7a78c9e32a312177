"""Where each variable of a jaxpr is made, through the calls that it is passed into and out of."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from types import CodeType
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn

from parity.pairs.jax_side.jaxprs import CALLS, CUSTOM, LOOPS, equations, inner, is_literal, opened

_JAX = f"{Path(jax.__file__).parent}{os.sep}"


class Definitions:
    """The equations that make a program's variables, its parameters, and what never counts.

    A function that is called in several places is taken to have the arguments of its first call.
    """

    def __init__(self, program: ClosedJaxpr, parameters: int) -> None:
        self.leaves = set(program.jaxpr.invars[:parameters])
        self._made: dict[Any, JaxprEqn] = {}
        self._same: dict[Any, Any] = {}
        every = list(equations(program))
        self._number = {
            id(equation): number
            for sub in [program, *(sub for e in every for sub in inner(e))]
            for number, equation in enumerate(opened(sub).eqns)
        }
        for equation in every:
            body = {**CALLS, **CUSTOM}.get(equation.primitive.name)
            if body is None:
                self._made.update(dict.fromkeys(equation.outvars, equation))
                continue
            called = opened(equation.params[body])
            for inside, outside in zip(called.invars, equation.invars, strict=True):
                self._same.setdefault(inside, outside)
            self._same.update(zip(equation.outvars, called.outvars, strict=True))
        loops = [sub for e in every if e.primitive.name in LOOPS for sub in inner(e)]
        ends = [var for sub in loops for var in opened(sub).outvars]
        self._counted = self._count(every, [*program.jaxpr.outvars, *ends])

    def number(self, equation: JaxprEqn) -> int:
        """Return the place of an equation in its function."""
        return self._number[id(equation)]

    def counts(self, equation: JaxprEqn) -> bool:
        """Whether anything but the unlikely case of a guard uses what an equation makes."""
        return not self._counted.isdisjoint(equation.outvars)

    def origin(self, var: Any) -> Any:
        """Return the variable that was passed on as this one."""
        while not is_literal(var) and var in self._same:
            var = self._same[var]
        return var

    def made(self, var: Any) -> JaxprEqn | None:
        """Return the equation that makes a variable; None: an argument, or a number."""
        var = self.origin(var)
        return None if is_literal(var) else self._made.get(var)

    def guarded(self, select: JaxprEqn) -> int | None:
        """Return the place of a choice's case that only nan and infinity take, if it is a guard."""
        before, taken = self.made(select.invars[0]), 2
        while before is not None and before.primitive.name == "not":
            before, taken = self.made(before.invars[0]), 3 - taken
        if before is None:
            return None
        if before.primitive.name == "is_finite":
            return 3 - taken
        same = before.primitive.name == "ne" and before.invars[0] is before.invars[1]
        return taken if same else None

    def _count(self, every: Sequence[JaxprEqn], outputs: Sequence[Any]) -> set[Any]:
        counted = {origin for var in outputs if not is_literal(origin := self.origin(var))}
        for equation in reversed(every):
            name = equation.primitive.name
            given = list(equation.invars)
            if name in {**CALLS, **CUSTOM}:
                called = opened(equation.params[{**CALLS, **CUSTOM}[name]])
                if all(self._same.get(a) is b for a, b in zip(called.invars, given, strict=True)):
                    continue  # the arguments count where they are used inside
            elif not counted & set(equation.outvars):
                continue
            elif name == "select_n" and len(given) == 3:
                never = self.guarded(equation)
                given = [var for place, var in enumerate(given) if place != never]
            counted.update(origin for var in given if not is_literal(origin := self.origin(var)))
        return counted


def call_path(equation: JaxprEqn) -> tuple[tuple[Any, ...], ...]:
    """Return file, lines and columns of each call that led to an equation, outside JAX."""
    traceback = equation.source_info.traceback
    steps = zip(*traceback.raw_frames(), strict=True) if traceback else ()
    return tuple(
        (code.co_filename, *_positions(code)[at // 2])
        for code, at in steps
        if not code.co_filename.startswith(_JAX)
    )


@functools.lru_cache(1000)
def _positions(code: CodeType) -> list[tuple[int | None, ...]]:
    """Return lines and columns of each instruction: its place differs from call to call."""
    return list(code.co_positions())
