"""PyTorch's side of a pair: leaves, layers, and every operation as it is made."""

import contextlib
import copy
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from parity.pairs.mapping.leaves import Leaf, Node, kind_of, nodes_of
from parity.pairs.pair import Pair, PairError, user_code
from parity.pairs.torch_side.operations import Operations, WithoutDropout, mark
from parity.pairs.torch_side.recording import Recording

Values = Mapping[str, np.ndarray]


class Seen(Protocol):
    """What is called with each tensor that goes into a layer or comes out of it."""

    def __call__(self, layer: str, way: str, place: int, call: int, value: Tensor, /) -> Tensor:
        """Return what takes its place."""
        ...


@dataclass
class TorchSide:
    """A PyTorch model, or function, whose leaves can be replaced."""

    leaves: dict[str, Leaf]
    net: Any
    """A copy of the model in float64; a function of tensors where there are no layers."""
    pair: Pair
    tensors: dict[str, Tensor]
    calls: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def nodes(self) -> dict[str, Node]:
        """Return the layers that the last run called."""
        return nodes_of(self.calls, self.leaves, self.aliases)

    def set(self, values: Values, *, copy: bool = False) -> None:
        """Give leaves new values; parameters are the arrays themselves, unless copied."""
        for name, value in values.items():
            shared = self.leaves[name].trained and not copy
            new = np.asarray(value, np.float64) if shared else np.array(value, np.float64)
            self.tensors[name].data = torch.from_numpy(new)

    @property
    def frozen(self) -> list[str]:
        """Names of the parameters that take no gradient."""
        trained = (name for name, leaf in self.leaves.items() if leaf.trained)
        return [name for name in trained if not self.tensors[name].requires_grad]

    def settle(self, values: Values) -> None:
        """Give leaves values again where a run may have left a graph behind them."""
        for value in self.tensors.values():
            if value.grad_fn is not None:
                value.detach_()
        self.set(values)

    def run(
        self,
        inputs: Sequence[Any],
        *,
        seen: Seen | None = None,
        train: bool = False,
        mode: Any = None,
        dtype: torch.dtype = torch.float64,
    ) -> Any:
        """Return what the model returns for inputs; `seen` is called at each layer.

        `mode` is entered: `Operations`, or another dispatch mode.
        """
        given = [x if isinstance(x, Tensor) else tensor(x) for x in inputs]
        given = [x.to(dtype) if x.is_floating_point() and x.dtype != dtype else x for x in given]
        before = torch.get_default_dtype()
        self.calls.clear()
        with contextlib.ExitStack() as stack:
            torch.set_default_dtype(dtype)
            stack.callback(torch.set_default_dtype, before)
            if dtype != torch.float64:
                self._cast(dtype)
                stack.callback(self._cast, torch.float64)
            operations = mode if isinstance(mode, Operations) else None
            call = stack.enter_context(self._ready(train, seen, operations))
            stack.enter_context(user_code("the PyTorch side"))
            if "torch._dynamo" in sys.modules:  # what was compiled runs as it was written
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if train:
                stack.enter_context(WithoutDropout())
            if mode is not None:
                stack.enter_context(mode)
            if operations:
                for place, x in enumerate(given):
                    mark(x, f"input{place if len(given) > 1 else ''}")
            return call(*given)

    def _cast(self, dtype: torch.dtype) -> None:
        for value in self.tensors.values():
            value.data = value.data.to(dtype)

    @contextlib.contextmanager
    def _ready(
        self, train: bool, seen: Seen | None, operations: Operations | None
    ) -> Iterator[Callable[..., Any]]:
        """Give what is called with the inputs, its layers watched for the time of the block."""
        use = (self.pair.train_torch if train else None) or self.pair.call_torch
        use = use or (lambda net, *xs: net(*xs))
        if not isinstance(self.net, nn.Module):
            yield functools.partial(use, self.net)
            return
        _set_mode(self.net, train)
        with _hooked(self.net, self.calls, seen, operations):
            yield functools.partial(use, self.net)


def tensor(array: Any) -> Tensor:
    """Return an array as a tensor of its own; floats in float64."""
    array = np.array(array)
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(array)


def torch_side(pair: Pair) -> TorchSide:
    """Return PyTorch's side of a pair. PairError: a model that cannot be copied."""
    model = pair.torch
    if isinstance(model, Recording):
        from parity.pairs.torch_side.replayed import replayed

        return replayed(model, pair)
    if isinstance(model, tuple):
        if len(model) != 2 or not callable(model[0]):
            raise PairError("Pair: torch is a tuple, but not (function, its parameters)")
        return _of_function(*model, pair)
    if not isinstance(model, nn.Module):
        return TorchSide({}, model, pair, {})
    if found := [name for name, value in model.named_parameters() if value.is_complex()]:
        raise PairError(
            f"{found[0]} is a complex parameter; hold its two parts as real numbers on both sides,"
            " and let torch.view_as_complex and jax.lax.complex join them"
        )
    with user_code("copying the PyTorch model"):
        net = copy.deepcopy(model).to("cpu").double()
    for value in net.buffers():
        if value.is_complex():
            value.data = value.data.to(torch.complex128)
    leaves, tensors = {}, {}
    names: dict[int, str] = {}
    aliases: dict[str, list[str]] = {}
    kinds = {name: kind_of(type(module).__name__) for name, module in net.named_modules()}
    given = dict(model.named_parameters(remove_duplicate=False))
    given |= dict(model.named_buffers(remove_duplicate=False))
    groups = ((True, net.named_parameters), (False, net.named_buffers))
    for trained, group in groups:
        for name, value in group(remove_duplicate=False):
            owner = name.rpartition(".")[0]
            if id(value) in names:
                aliases.setdefault(owner, []).append(names[id(value)])
            elif value.is_floating_point():
                names[id(value)] = name
                tensors[name] = value
                array = _array(given[name])
                leaves[name] = Leaf(name, array, kinds.get(owner, "other"), trained)
    found = {owner: tuple(alias) for owner, alias in aliases.items()}
    return TorchSide(leaves, net, pair, tensors, aliases=found)


def _array(value: Tensor) -> np.ndarray:
    """Return a tensor's numbers, not copied where NumPy has its type."""
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _of_function(function: Callable[..., Any], params: Any, pair: Pair) -> TorchSide:
    flat, tree = tree_flatten(params)
    held = [value.detach().double().clone().requires_grad_() for value in flat]
    whole = tree_unflatten(held, tree)
    tensors = dict(named_tensors(whole))
    leaves = {
        name: Leaf(name, value.detach().clone().numpy(), "other") for name, value in tensors.items()
    }
    return TorchSide(leaves, lambda *xs: function(whole, *xs), pair, tensors)


def named_tensors(tree: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested mappings and sequences, by path."""
    start = name + "." if name else ""
    if isinstance(tree, Tensor):
        yield name, tree
    else:
        for key, item in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from named_tensors(item, f"{start}{key}")


def _set_mode(net: nn.Module, train: bool) -> None:
    net.train(train)
    for module in net.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            object.__setattr__(module, "dropout", 0.0)


@contextlib.contextmanager
def _hooked(
    net: nn.Module, calls: dict[str, str], seen: Seen | None, mode: "Operations | None"
) -> Iterator[None]:
    """Let `seen` be called at each layer, for the time of the block, whatever happens in it."""
    count: dict[str, int] = {}
    handles = []
    for name, module in net.named_modules():

        def before(own: nn.Module, args: Any, kwargs: Any, name: str = name) -> Any:
            calls.setdefault(name, type(own).__name__)
            count[name] = count.get(name, -1) + 1
            if mode:
                mode.modules.append(name)
            return _seen((args, kwargs), seen, name, "in", count[name]) if seen else None

        def after(_: nn.Module, __: Any, ___: Any, out: Any, name: str = name) -> Any:
            if mode and mode.modules:
                mode.modules.pop()
            return _seen(out, seen, name, "out", count[name]) if seen else None

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _seen(tree: Any, seen: Seen, layer: str, way: str, call: int) -> Any:
    place = 0

    def replace(value: Any) -> Any:
        nonlocal place
        if not isinstance(value, Tensor):
            return value
        place += 1
        return seen(layer, way, place - 1, call, value)

    return tree_map(replace, tree)


def arrays(outputs: Any) -> list[Tensor]:
    """Return the tensors in what a model returns, dicts by sorted key, as JAX sorts them."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if type(outputs) is dict:
        return [x for key in sorted(outputs) for x in arrays(outputs[key])]
    if isinstance(outputs, Mapping):
        return [x for item in outputs.values() for x in arrays(item)]
    if isinstance(outputs, list | tuple):
        return [x for item in outputs for x in arrays(item)]
    if isinstance(outputs, int | float | complex | np.ndarray):
        return [torch.as_tensor(outputs)]
    if hasattr(outputs, "__dataclass_fields__"):
        return [x for name in outputs.__dataclass_fields__ for x in arrays(getattr(outputs, name))]
    return []
