"""The border between JAX's state and the canonical one, which has PyTorch's layout."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, struct
from jax import Array

from jaxcnn.device import resolve
from jaxcnn.fused import FusedCNN
from jaxcnn.model import CNN
from jaxcnn.optim import OptState, adam
from jaxcnn.parallel import replicated
from parity.contract.errors import StateError
from parity.contract.recipe import DType, Recipe
from parity.contract.state import Arrays, State


class Row(NamedTuple):
    """Where Flax keeps a parameter, and how its layout and the canonical one become each other."""

    path: tuple[str, str]
    to_native: Callable[[np.ndarray], np.ndarray] = lambda array: array
    to_canonical: Callable[[np.ndarray], np.ndarray] = lambda array: array


LAYOUT = {
    "conv1.weight": Row(
        ("conv1", "kernel"),
        lambda w: w.transpose(2, 3, 1, 0),  # O, I, H, W → H, W, I, O
        lambda w: w.transpose(3, 2, 0, 1),
    ),
    "conv1.bias": Row(("conv1", "bias")),
    "fc1.weight": Row(
        ("fc1", "kernel"),  # flattened in the order H, W, C
        lambda w: w.reshape(10, 16, 13, 13).transpose(2, 3, 1, 0).reshape(2704, 10),
        lambda w: w.reshape(13, 13, 16, 10).transpose(3, 2, 0, 1).reshape(10, 2704),
    ),
    "fc1.bias": Row(("fc1", "bias")),
}
"""One row a parameter, for weights, gradients and both moments."""


class TrainState(struct.PyTreeNode):
    """What a step reads and returns; the arrays are data, the rest is known to the compiler."""

    params: nnx.State
    opt_state: OptState
    graphdef: nnx.GraphDef[CNN] = struct.field(pytree_node=False)
    optimizer: optax.GradientTransformation = struct.field(pytree_node=False)


def import_state(state: State, recipe: Recipe) -> TrainState:
    """Build model and optimiser by copying a state; raise StateError if it has another dtype."""
    if state.dtype != recipe.dtype:
        raise StateError(f"the state is {state.dtype}, but the recipe asks for {recipe.dtype}")
    recipe = resolve(recipe)
    graphdef, shapes = _split(FusedCNN if recipe.kernel == "fused" else CNN, recipe.dtype)
    params, mu, nu = (
        _to_native(arrays, shapes, recipe) for arrays in (state.params, state.adam_m, state.adam_v)
    )
    optimizer, (adam_state, rest) = adam(params, lr=recipe.lr)
    count = replicated(np.int32(state.step), recipe)
    opt_state = (adam_state._replace(count=count, mu=mu, nu=nu), rest)
    return TrainState(params, opt_state, graphdef, optimizer)


def export_state(state: TrainState) -> State:
    """Return a canonical copy of model and optimiser."""
    adam_state = state.opt_state[0]
    return State(
        params=export_arrays(state.params),
        adam_m=export_arrays(cast(nnx.State, adam_state.mu)),
        adam_v=export_arrays(cast(nnx.State, adam_state.nu)),
        step=int(np.asarray(adam_state.count)),
    )


def export_arrays(values: nnx.State) -> Arrays:
    """Return canonical copies of parameters, gradients or moments."""
    return from_flax(nnx.to_pure_dict(values))


def export_array(value: Array | np.ndarray) -> np.ndarray:
    """Return a contiguous NumPy copy."""
    return np.array(value, order="C", copy=True)


def to_flax(arrays: Arrays) -> dict[str, dict[str, np.ndarray]]:
    """Return copies in Flax's layout, by layer and leaf."""
    tree: dict[str, dict[str, np.ndarray]] = {}
    for name, row in LAYOUT.items():
        layer, leaf = row.path
        tree.setdefault(layer, {})[leaf] = export_array(row.to_native(arrays[name]))
    return tree


def from_flax(tree: Mapping[str, Any]) -> Arrays:
    """Return canonical copies of what lies in Flax's layout."""
    return {
        name: export_array(row.to_canonical(np.asarray(tree[row.path[0]][row.path[1]])))
        for name, row in LAYOUT.items()
    }


@functools.cache
def _split(network: type[CNN], dtype: DType) -> tuple[nnx.GraphDef[CNN], nnx.State]:
    """Return a network without values: its graph, and the shapes of its parameters."""
    model = nnx.eval_shape(lambda: network(dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)))
    return nnx.split(model, nnx.Param)


def _to_native(arrays: Arrays, shapes: nnx.State, recipe: Recipe) -> nnx.State:
    native = replicated(to_flax(arrays), recipe)
    tree = jax.tree.map(lambda shape: shape, shapes)  # a copy: the next line fills it in place
    nnx.replace_by_pure_dict(tree, native)
    return tree
