"""PyTorch's operations as they are made: listed, computed otherwise, and made again."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from parity.pairs import is_tool


@dataclass
class Operation:
    """An aten operation as it was made."""

    number: int
    name: str
    """As `gelu`."""
    scalars: tuple[Any, ...]
    """Its arguments that are no tensors."""
    source: str
    """File and line of the code that is not PyTorch's."""
    parents: tuple["int | str", ...]
    """Numbers of the operations, or names of the marks, that its tensors come from."""
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    module: str = ""
    """The innermost module that it was made in."""
    island: bool = False
    """Whether it makes a float narrower than its inputs."""
    draws: bool = False
    """Whether it draws random numbers."""


Variant = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""(aten function, arguments, keyword arguments) → what is returned in its place."""


class Operations(TorchDispatchMode):
    """Lists each operation; computes some otherwise, and in float64 whatever type is asked for.

    `like` are the operations of the run that the numbers of `variants` are of.
    """

    def __init__(
        self,
        *,
        variants: Mapping[int, Variant] | None = None,
        like: "Sequence[Operation]" = (),
        widen: bool = False,
        keep: "Region | None" = None,
    ) -> None:
        super().__init__()
        self.made: list[Operation] = []
        self.modules: list[str] = []
        """Those that are being called, innermost last."""
        self.line: str | None = None
        """The source of the operations to come, where it is not that of the code that runs."""
        self._variants, self._widen, self._keep = variants or {}, widen, keep
        self._like = like

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        number = len(self.made)
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        parents = tuple(made for made, _ in map(marked, given) if made != "")
        narrow_in = any(_is_narrow(x.dtype) for x in given)
        if self._widen:
            args, kwargs = tree_map(_wide, (args, kwargs))
        variant = self._variants.get(number)
        if self._keep:
            self._keep.keep(number, func, args, kwargs)
        out = variant(func, args, kwargs) if variant else func(*args, **kwargs)
        if variant and isinstance(out, Tensor) and number < len(self._like):
            out = laid_out(out, self._like[number].strides)
        results = [x for x in tree_flatten(out)[0] if isinstance(x, Tensor)]
        first = results[0] if results else torch.empty(0)
        asked = kwargs.get("dtype") if self._widen else first.dtype
        name = func.overloadpacket.__name__
        scalars = tuple(x for x in tree_flatten((args, kwargs))[0] if not isinstance(x, Tensor))
        operation = Operation(
            number,
            name,
            scalars,
            user_source() if self.line is None else self.line,
            parents,
            str(first.dtype)[6:],
            tuple(first.shape),
            first.stride(),
            self.modules[-1] if self.modules else "",
            _is_narrow(asked) and not narrow_in,
            torch.Tag.nondeterministic_seeded in func.tags,
        )
        self.made.append(operation)
        for place, result in enumerate(results):
            mark(result, number, place)
        return out


@dataclass(frozen=True)
class _Made:
    """Stands for a tensor that another operation of the region makes."""

    number: int
    place: int


class Region:
    """Some operations of a run, kept so that they can be made again, one of them otherwise."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._wanted = set(numbers)
        self._calls: dict[int, tuple[Any, Any]] = {}

    def keep(self, number: int, func: Any, args: Any, kwargs: Any) -> None:
        """Keep a call with copies of what comes from outside, if it is wanted.

        What it returns is not held: PyTorch makes other operations for a tensor that is.
        """
        if number not in self._wanted:
            return

        def held(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            made, place = marked(value)
            return _Made(made, place) if made in self._calls else value.clone()

        self._calls[number] = func, tree_map(held, (args, kwargs))

    def run(self, variants: Mapping[int, Variant]) -> dict[tuple[int, int], Tensor]:
        """Make the operations again; return each result by number and place."""
        made: dict[tuple[int, int], Tensor] = {}

        def read(value: Any) -> Any:
            if isinstance(value, _Made):
                return made[value.number, value.place]
            return value.clone() if isinstance(value, Tensor) else value

        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)  # as in the run, for constants that the code makes
        try:
            for number in sorted(self._calls):
                func, call = self._calls[number]
                if func is torch.ops.aten.view.default:
                    func = torch.ops.aten.reshape.default  # a variant may be laid out otherwise
                args, kwargs = tree_map(read, call)
                variant = variants.get(number)
                out = variant(func, args, kwargs) if variant else func(*args, **kwargs)
                results = [x for x in tree_flatten(out)[0] if isinstance(x, Tensor)]
                made.update(((number, place), result) for place, result in enumerate(results))
        finally:
            torch.set_default_dtype(before)
        return made


class Wide(TorchFunctionMode):
    """Lets casts to a narrower float be casts to float64, also where gradients are taken."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("float", "half", "bfloat16"):
            return args[0].double()
        narrow = {
            torch.float32: torch.float64,
            torch.float16: torch.float64,
            torch.bfloat16: torch.float64,
        }
        args, kwargs = tree_map(
            lambda x: narrow.get(x, x) if isinstance(x, torch.dtype) else x, (args, kwargs or {})
        )
        return func(*args, **kwargs)


class WithoutDropout(TorchFunctionMode):
    """Lets dropout be the identity, also where it is called as a function, or is written out.

    A mask drawn by `bernoulli` is p, the part that it keeps, and so one where it is divided by p.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name.rstrip("_123d").endswith("dropout"):
            return args[0] if args else (kwargs or {})["input"]
        kwargs = dict(kwargs or {})
        if name == "scaled_dot_product_attention":
            if len(args) > 4:
                args = (*args[:4], 0.0, *args[5:])
            else:
                kwargs["dropout_p"] = 0.0
        if name in ("bernoulli", "bernoulli_"):
            in_place = name[-1] == "_"
            first = args[0] if args else kwargs["input"]
            kept = args[1] if len(args) > 1 else kwargs.get("p", 0.5 if in_place else first)
            mask = first if in_place else torch.empty_like(first)
            kept = torch.as_tensor(kept)
            return mask.copy_(kept if mask.is_floating_point() else kept > 0)
        return func(*args, **kwargs)


def laid_out(value: Tensor, strides: Sequence[int]) -> Tensor:
    """Return the same numbers with these strides, unless elements would share their places.

    PyTorch makes other operations for a tensor that is laid out otherwise, as in `linear`.
    """
    if value.stride() == tuple(strides) or value.ndim != len(strides):
        return value
    parts = value
    for axis, step in enumerate(strides):
        parts = parts if step else parts.narrow(axis, 0, min(1, value.shape[axis]))
    last = 0
    for step, length in sorted(zip(strides, parts.shape, strict=True)):
        if length > 1 and step <= last:
            return value
        last += step * (length - 1)
    new = torch.empty_strided(parts.shape, tuple(strides), dtype=value.dtype)
    return new.copy_(parts).expand(value.shape)


def mark(value: Tensor, made: "int | str", place: int = 0) -> Tensor:
    """Let a tensor be known by what made it, an operation's number or a name, to those that use it.

    `place` is which of the operation's results it is.
    """
    vars(value)["_parity"] = made, place
    return value


def marked(value: Tensor) -> tuple["int | str", int]:
    """Return what made a tensor, and its place; an empty name and 0 for one without a mark."""
    return vars(value).get("_parity", ("", 0))


def _is_narrow(dtype: Any) -> bool:
    return isinstance(dtype, torch.dtype) and dtype.is_floating_point and dtype != torch.float64


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor) and _is_narrow(value.dtype):
        return value.double()
    return torch.float64 if _is_narrow(value) else value


def user_source(callers: int = 2) -> str:
    """Return the line of the user's that makes an operation; none if a model of PyTorch's does.

    It is the last one before this many callers.
    """
    frame = sys._getframe(callers)
    while frame is not None:
        code = frame.f_code
        if code.co_name not in ("__torch_dispatch__", "__torch_function__"):
            if is_tool(code.co_filename):  # what calls the model
                return ""
            if "/torch/" not in code.co_filename and "contextlib" not in code.co_filename:
                return f"{'/'.join(code.co_filename.split('/')[-3:])}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
