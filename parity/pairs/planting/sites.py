"""An equation of JAX's program, and the rules for the mistakes that people make there."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from parity.pairs.jax_side.definitions import Definitions
from parity.pairs.jax_side.jaxprs import is_literal
from parity.pairs.rules import Rules


@dataclass(frozen=True)
class Site:
    """An equation of JAX's program, with what a mistake has to know of its inputs."""

    equation: JaxprEqn
    program: Definitions
    """What makes its inputs."""
    compute: Callable[..., list[Any]]
    """(inputs, parameters that are changed) → outputs."""

    @property
    def params(self) -> dict[str, Any]:
        """Of the equation."""
        return self.equation.params

    def shape(self, place: int) -> tuple[int, ...]:
        """Return the shape of an input."""
        return shape_of(self.equation.invars[place])

    @property
    def made(self) -> tuple[int, ...]:
        """The shape of the first output."""
        return shape_of(self.equation.outvars[0])

    def is_float(self, place: int = 0) -> bool:
        """Whether an input is of floats."""
        dtype = getattr(self.equation.invars[place].aval, "dtype", bool)
        return jnp.issubdtype(dtype, jnp.floating)

    def number(self, place: int) -> float | None:
        """Return the number that stands in the program as an input, or None."""
        return number_of(self.equation.invars[place])

    def before(self, place: int = 0) -> JaxprEqn | None:
        """Return the equation that makes an input."""
        return self.program.made(self.equation.invars[place])

    def leaf(self, place: int) -> bool:
        """Whether an input is a parameter of the model, perhaps moved."""
        var = self.program.origin(self.equation.invars[place])
        before = self.program.made(var)
        while before is not None and before.primitive.name in _MOVES:
            var = self.program.origin(before.invars[0])
            before = self.program.made(var)
        return before is None and not is_literal(var) and var in self.program.leaves


def shape_of(var: Any) -> tuple[int, ...]:
    """Return the shape of a variable, or of a number."""
    return tuple(var.aval.shape)


def number_of(var: Any) -> float | None:
    """Return the number that stands in the program, or None for a variable or an array."""
    if not is_literal(var) or np.ndim(var.val) or not np.isrealobj(var.val):
        return None
    return float(var.val)


_MOVES = ("transpose", "reshape", "broadcast_in_dim", "convert_element_type", "squeeze", "copy")

Mistake = tuple[str, Callable[..., list[Any]]]
"""Its name in the catalogue of causes where it has one, and what the equation computes then."""
Rule = Callable[[Site], Iterator[Mistake]]
RULES: Rules[Rule] = Rules()
"""By the name of JAX's primitive."""
of = RULES.of
