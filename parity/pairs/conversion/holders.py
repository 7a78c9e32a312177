"""What each side of a pair keeps in a file: its arrays by the map's names, bit for bit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, nn

from parity.pairs.jax_side.models import nnx_value
from parity.pairs.mapping.leaves import nested
from parity.pairs.pair import Pair, PairError
from parity.pairs.torch_side.model import named_tensors

Arrays = dict[str, np.ndarray]
Side = Literal["PyTorch", "JAX"]

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def to_numpy(tensor: Tensor) -> np.ndarray:
    """Return a tensor's values bit for bit, bfloat16 and float8 too."""
    tensor = tensor.detach().cpu().contiguous()
    dtype = jnp.dtype(str(tensor.dtype).removeprefix("torch."))
    if dtype.kind != "V" and dtype.type.__module__ == "numpy":
        return tensor.numpy()
    return tensor.view(_BITS[dtype.itemsize]).numpy().view(dtype)


def to_tensor(array: np.ndarray) -> Tensor:
    """Return an array's values bit for bit as a tensor of its own."""
    array = np.array(array, order="C")
    if array.dtype.type.__module__ == "numpy":
        return torch.from_numpy(array)
    bits = torch.from_numpy(array.view({1: "u1", 2: "i2"}[array.dtype.itemsize]))
    return bits.view(getattr(torch, array.dtype.name))


@dataclass(frozen=True)
class Holder:
    """What one side of a pair keeps in a file: every array of its own, by the map's name."""

    side: Side
    own: Arrays
    tree: Callable[[Mapping[str, Any]], Any]
    """(values by name) → the tree that Orbax keeps."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Second names of a leaf → its first."""
    unsaved: Arrays = field(default_factory=dict)
    """Arrays that the model has and its files do not."""


def torch_holder(pair: Pair) -> Holder:
    """Return what PyTorch's model has in its state_dict. PairError: it has none."""
    model, aliases, unsaved = pair.torch, {}, {}
    if isinstance(model, nn.Module):
        first: dict[int, str] = {}
        for group in (model.named_parameters, model.named_buffers):
            for name, value in group(remove_duplicate=False):
                if first.setdefault(id(value), name) != name:
                    aliases[name] = first[id(value)]
        tensors = {n: x for n, x in model.state_dict().items() if isinstance(x, Tensor)}
        unsaved = {n: to_numpy(x) for n, x in model.named_buffers() if n not in tensors}
    elif isinstance(model, tuple):
        tensors = dict(named_tensors(model[1]))
    else:
        raise PairError("the PyTorch side is a function without weights; there is none to convert")
    return Holder("PyTorch", {n: to_numpy(x) for n, x in tensors.items()}, dict, aliases, unsaved)


def jax_holder(pair: Pair) -> Holder:
    """Return the arrays of JAX's model and its tree. PairError: it has none."""
    from flax import linen, nnx, traverse_util

    model = pair.jax
    if isinstance(model, nnx.Module):
        state = nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState)))
        flat = {tuple(path): nnx_value(variable) for path, variable in state}
        skipped = 0
    elif isinstance(model, tuple) and isinstance(model[0], linen.Module):
        flat = traverse_util.flatten_dict(linen.meta.unbox(dict(model[1])))
        skipped = 1  # the collection is no part of the map's names
    else:
        return _pytree_holder(model[1] if isinstance(model, tuple) else model)
    paths = {".".join(map(str, path[skipped:])): path for path, x in flat.items() if _is_array(x)}

    def tree(values: Mapping[str, Any]) -> Any:
        return traverse_util.unflatten_dict({paths[name]: x for name, x in values.items()})

    return Holder("JAX", {n: np.asarray(flat[path]) for n, path in paths.items()}, tree)


def _pytree_holder(model: Any) -> Holder:
    leaves, structure = jax.tree_util.tree_flatten_with_path(model)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    own = {n: np.asarray(x) for n, (_, x) in zip(names, leaves, strict=True) if _is_array(x)}
    if not own:
        raise PairError("the JAX side is a function without weights; there is none to convert")

    def tree(values: Mapping[str, Any]) -> Any:
        if _is_plain(model):
            every = [values.get(n, x) for n, (_, x) in zip(names, leaves, strict=True)]
            return jax.tree_util.tree_unflatten(structure, every)
        return nested(values)

    return Holder("JAX", own, tree)


def _is_array(value: Any) -> bool:
    if not isinstance(value, jax.Array | np.ndarray):
        return False
    return not jnp.issubdtype(value.dtype, jax.dtypes.extended)


def _is_plain(tree: Any) -> bool:
    """Whether it is made of dicts, lists and tuples alone, which Orbax keeps as they are."""
    if type(tree) in (dict, list, tuple):
        return all(map(_is_plain, tree.values() if isinstance(tree, dict) else tree))
    return _is_array(tree)
