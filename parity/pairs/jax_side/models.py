"""JAX's models as sides of a pair: NNX, Linen, functions, and pytrees that are called."""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from parity.pairs.jax_side import jaxprs
from parity.pairs.jax_side.program import JaxSide, Values
from parity.pairs.mapping.leaves import Leaf, kind_of
from parity.pairs.pair import Pair, PairError


def jax_side(pair: Pair) -> JaxSide:
    """Return JAX's side of a pair. PairError: it is nothing that can be called with leaves."""
    from flax import linen, nnx

    model = pair.jax
    if isinstance(model, nnx.Module):
        return _of_nnx(model, pair)
    if isinstance(model, tuple):
        if len(model) == 2 and isinstance(model[0], linen.Module):
            return _of_linen(*model, pair)
        if len(model) == 2 and callable(model[0]):
            return _of_function(*model, pair)
        raise PairError("Pair: jax is a tuple, but not (module or function, its parameters)")
    if isinstance(model, linen.Module):
        raise PairError("Pair: a Linen module needs its variables; give jax=(module, variables)")
    if _array_leaves(model):
        return _of_tree(model, pair)
    return _of_function(model, None, pair)


def _array_leaves(tree: Any) -> dict[str, Any]:
    """Return the arrays of floats in a pytree, by path."""
    found = {}
    for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(value, jax.Array | np.ndarray) and jnp.issubdtype(value.dtype, jnp.inexact):
            found[jax.tree_util.keystr(path, simple=True, separator=".")] = value
    return found


def _replaced(tree: Any, values: Values) -> Any:
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    leaves = [values.get(name, leaf) for name, (_, leaf) in zip(names, paths, strict=True)]
    return jax.tree_util.tree_unflatten(structure, leaves)


def _leaf(name: str, value: Any, kind: str, *, trained: bool = True) -> Leaf:
    return Leaf(name, np.asarray(value), kind, trained)


def _caller(pair: Pair, train: bool) -> Callable[..., Any]:
    """Return what calls the model on inputs."""
    return (pair.train_jax if train else None) or pair.call_jax or (lambda net, *xs: net(*xs))


def _marked(log: dict[str, str], name: str, class_name: str, call: Callable[..., Any]) -> Any:
    """Wrap a layer's call so that the arrays that go in and come out are marked."""

    @functools.wraps(call)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        log.setdefault(name, class_name)
        args, kwargs = _tagged((args, kwargs), name, "in")
        return _tagged(call(*args, **kwargs), name, "out")

    return wrapper


def _tagged(tree: Any, name: str, way: str) -> Any:
    place = 0

    def mark(value: Any) -> Any:
        nonlocal place
        if not isinstance(value, jax.Array | np.ndarray):
            return value
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key) or value.dtype.kind not in "fiubV":
            return value
        place += 1
        return jaxprs.tag(value, name, way, place - 1)

    return jax.tree.map(mark, tree, is_leaf=_is_model)


def _is_model(value: Any) -> bool:
    from flax import nnx

    return isinstance(value, nnx.Pytree | nnx.Variable | nnx.GraphDef)


_PATH = "_parity_path"


@contextlib.contextmanager
def _patched(
    classes: set[type], wrap: Callable[[Any, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Let each class's `__call__` be wrapped for the time of the block, whatever happens in it."""
    methods = {cls: inspect.getattr_static(cls, "__call__") for cls in classes}
    depth: set[int] = set()
    with contextlib.ExitStack() as stack:
        for cls, method in methods.items():

            def call(self: Any, *args: Any, _call: Any = method, **kwargs: Any) -> Any:
                if id(self) in depth:  # super().__call__
                    return _call(self, *args, **kwargs)
                depth.add(id(self))
                try:
                    return wrap(self, functools.partial(_call, self))(*args, **kwargs)
                finally:
                    depth.discard(id(self))

            stack.enter_context(mock.patch.object(cls, "__call__", functools.wraps(method)(call)))
        yield


def _of_nnx(model: Any, pair: Pair) -> JaxSide:
    from flax import nnx

    net = nnx.clone(model)
    kinds = {}
    for path, module in nnx.iter_modules(net):
        name = ".".join(map(str, path))
        setattr(module, _PATH, name)
        kinds[name] = type(module).__name__
    graphdefs = {}
    for train in (False, True):
        getattr(net, "train" if train else "eval")()
        for _, module in nnx.iter_modules(net):
            if isinstance(module, nnx.Dropout):
                module.deterministic = True
        graphdefs[train], state = nnx.split(net)
    variables = dict(nnx.to_flat_state(state))
    leaves = _nnx_leaves(variables, kinds)
    classes = {type(module) for _, module in nnx.iter_modules(net) if callable(module)}
    side = JaxSide(leaves, lambda *_: (None, {}))

    def call(values: Values, inputs: list[Any], train: bool) -> tuple[Any, dict[str, Any]]:
        side.calls.clear()
        flat = {}
        for path, variable in variables.items():
            name = ".".join(map(str, path))
            held = variable.replace if hasattr(variable, "replace") else jnp.asarray
            flat[path] = held(values[name]) if name in values else variable
        merged = nnx.merge(graphdefs[train], nnx.from_flat_state(list(flat.items())), copy=True)
        use = _caller(pair, train)

        def wrap(module: Any, method: Callable[..., Any]) -> Callable[..., Any]:
            path = getattr(module, _PATH, None)
            if path is None:
                return method
            return _marked(side.calls, path, type(module).__name__, method)

        with _patched(classes, wrap):
            outputs = use(merged, *inputs)
        after = {
            ".".join(map(str, path)): nnx_value(variable)
            for path, variable in nnx.to_flat_state(nnx.state(merged))
        }
        return outputs, {name: after[name] for name in values if not leaves[name].trained}

    side.call = call
    return side


def nnx_value(variable: Any) -> Any:
    """Return the array of a variable of NNX; a module may hold arrays that are none."""
    return variable.get_value() if hasattr(variable, "get_value") else variable


def _nnx_leaves(variables: Mapping[Any, Any], classes: Mapping[str, str]) -> dict[str, Leaf]:
    """Return the arrays of floats among variables by path; `classes` are those of the layers."""
    from flax import nnx

    leaves = {}
    for path, variable in variables.items():
        value = nnx_value(variable)
        name = ".".join(map(str, path))
        if isinstance(variable, nnx.RngState) or not isinstance(value, jax.Array | np.ndarray):
            continue
        if jnp.issubdtype(value.dtype, jnp.floating):
            owner = classes.get(name.rpartition(".")[0], "")
            trained = isinstance(variable, nnx.Param)
            leaves[name] = _leaf(name, value, kind_of(owner), trained=trained)
    return leaves


def _of_linen(module: Any, variables: Any, pair: Pair) -> JaxSide:
    from flax import linen, traverse_util

    flat = traverse_util.flatten_dict(linen.meta.unbox(dict(variables)), sep=".")
    leaves = {}
    collections = {}
    for name, value in flat.items():
        collection, _, path = name.partition(".")
        if np.asarray(value).dtype.kind == "f":
            collections[path] = collection
            leaves[path] = _leaf(path, value, "", trained=collection == "params")
    side = JaxSide(leaves, lambda *_: (None, {}))

    def intercept(proceed: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, linen.Dropout):
            return args[0] if args else kwargs["inputs"]
        if context.method_name != "__call__":
            return proceed(*args, **kwargs)
        name = ".".join(context.module.path)
        return _marked(side.calls, name, type(context.module).__name__, proceed)(*args, **kwargs)

    def call(values: Values, inputs: list[Any], train: bool) -> tuple[Any, dict[str, Any]]:
        side.calls.clear()
        own = {**flat, **{f"{collections[name]}.{name}": value for name, value in values.items()}}
        nested = traverse_util.unflatten_dict(own, sep=".")
        use = _caller(pair, train)
        # nothing may be changed but in training: `bind` does it so, and a module may ask
        others = [name for name in nested if name != "params"] if train else []
        with linen.intercept_methods(intercept):
            found = module.apply(
                nested, *inputs, mutable=others or False, method=lambda net, *xs: use(net, *xs)
            )
        outputs, changed = found if others else (found, {})
        after = {**own, **traverse_util.flatten_dict(dict(changed), sep=".")}
        after = {name: after[f"{collections[name]}.{name}"] for name in values}
        return outputs, {name: after[name] for name in values if not leaves[name].trained}

    side.call = call
    with contextlib.suppress(PairError):  # the classes of the layers are known once it is called
        side.trace(
            {name: leaf.value.astype(np.float64) for name, leaf in leaves.items()},
            list(pair.inputs),
        )
    side.leaves = {
        name: dataclasses.replace(leaf, kind=kind_of(side.calls.get(leaf.owner, "")))
        for name, leaf in leaves.items()
    }
    leaves.update(side.leaves)
    return side


def _of_function(function: Callable[..., Any], params: Any, pair: Pair) -> JaxSide:
    """Return a function of parameters, if there are any, and inputs."""
    leaves = {name: _leaf(name, value, "") for name, value in _array_leaves(params).items()}

    def call(values: Values, inputs: list[Any], train: bool) -> tuple[Any, dict[str, Any]]:
        use = _caller(pair, train)
        net = function if params is None else functools.partial(function, _replaced(params, values))
        return use(net, *inputs), {}

    return JaxSide(leaves, call)


def _of_tree(model: Any, pair: Pair) -> JaxSide:
    """Return a pytree that is called, as an Equinox module."""
    kinds = {name: type(module).__name__ for name, module in _modules(model)}
    leaves = {}
    for name, value in _array_leaves(model).items():
        leaves[name] = _leaf(name, value, kind_of(kinds.get(name.rpartition(".")[0], "")))
    side = JaxSide(leaves, lambda *_: (None, {}))

    def call(values: Values, inputs: list[Any], train: bool) -> tuple[Any, dict[str, Any]]:
        side.calls.clear()
        net = _replaced(model, values)
        names = {id(module): name for name, module in _modules(net)}
        use = _caller(pair, train)

        def wrap(module: Any, method: Callable[..., Any]) -> Callable[..., Any]:
            name = names.get(id(module))
            if name is None:
                return method
            return _marked(side.calls, name, type(module).__name__, method)

        classes = {type(module) for _, module in _modules(net)}
        with _patched(classes, wrap):
            return use(net, *inputs), {}

    side.call = call
    return side


def _modules(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dataclasses in a tree that can be called, by path."""
    start = name + "." if name else ""
    if isinstance(tree, list | tuple):
        for place, item in enumerate(tree):
            yield from _modules(item, f"{start}{place}")
    elif isinstance(tree, dict):
        for key, item in tree.items():
            yield from _modules(item, f"{start}{key}")
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        if callable(tree):
            yield name, tree
        for entry in dataclasses.fields(tree):
            yield from _modules(getattr(tree, entry.name, None), f"{start}{entry.name}")
