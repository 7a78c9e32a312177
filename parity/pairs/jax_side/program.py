"""JAX's side of a pair: leaves, layers, and the computation as a jaxpr with its layers marked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity.pairs.jax_side.evaluator import Evaluator
from parity.pairs.jax_side.jaxprs import traced
from parity.pairs.mapping.leaves import Leaf, Node, nodes_of
from parity.pairs.pair import PairError, user_code

Values = Mapping[str, Any]
Call = Callable[[Values, list[Any], bool], tuple[Any, dict[str, Any]]]
"""(leaves by name, inputs, train) → outputs, and the buffers after it."""


@dataclass
class JaxSide:
    """A JAX model, or function, whose leaves can be replaced."""

    leaves: dict[str, Leaf]
    call: Call
    calls: dict[str, str] = field(default_factory=dict)
    """The layers that were called, in that order: name → class."""
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def nodes(self) -> dict[str, Node]:
        """Return the layers that the last trace called."""
        return nodes_of(self.calls, self.leaves, self.aliases)

    def trace(
        self, values: Values, inputs: list[Any], *, train: bool = False, precise: bool = True
    ) -> "Program":
        """Return the computation from leaves and inputs to outputs and buffers.

        It is in float64, or in float32 if not `precise`, or if a part of it insists on that.
        """
        names = list(values)
        structure: list[Any] = []

        def flat(leaves: list[Any], arrays: list[Any]) -> tuple[list[Any], dict[str, Any]]:
            outputs, after = self.call(dict(zip(names, leaves, strict=True)), arrays, train)
            flat_outputs, tree = jax.tree.flatten(outputs)
            structure[:] = [tree]
            return [jnp.asarray(x) for x in flat_outputs], after

        def trace(precise: bool) -> Any:
            dtype = np.float64 if precise else np.float32
            with jax.enable_x64(precise), user_code("the JAX side"):
                leaves = [jnp.asarray(values[name], dtype) for name in names]
                arrays = [wide(array) for array in inputs]
                arrays = [x.astype(dtype) if x.dtype.kind == "f" else x for x in arrays]
                return traced(flat, leaves, [jnp.asarray(x) for x in arrays])

        single = not precise
        try:
            jaxpr, shapes = trace(precise)
        except PairError as error:
            # a part that insists on float32: its program is computed in float64 all the same
            if not precise or train or not isinstance(error.__cause__, TypeError):
                raise
            jaxpr, shapes = trace(False)
            single = True
        return Program(jaxpr, names, len(shapes[0]), sorted(shapes[1]), structure[0], single)


@dataclass(frozen=True)
class Program:
    """A side's computation as a jaxpr: (leaves, inputs) → (outputs, buffers by name)."""

    jaxpr: Any
    names: list[str]
    outputs: int
    buffers: list[str]
    structure: Any
    single: bool = False
    """Whether it was traced in float32."""

    def run(
        self, evaluator: Evaluator, values: Values, inputs: list[Any], *, as_traced: bool = False
    ) -> tuple[list[Any], dict[str, Any]]:
        """Evaluate it on the leaves and inputs given, in float64 or in the types it has."""
        with jax.enable_x64(not as_traced):
            args = [values[name] for name in self.names] + [wide(x) for x in inputs]
            types = [var.aval.dtype for var in self.jaxpr.jaxpr.invars]
            args = [
                jnp.asarray(x, dtype if as_traced or dtype.kind != "f" else None)
                for x, dtype in zip(args, types, strict=True)
            ]
            found = evaluator(self.jaxpr, *args)
        after = dict(zip(self.buffers, found[self.outputs :], strict=True))
        return found[: self.outputs], after


def wide(array: Any) -> Any:
    """Return an array of floats in float64, and any other as it is."""
    array = np.asarray(array) if not isinstance(array, jax.Array) else array
    return array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array
