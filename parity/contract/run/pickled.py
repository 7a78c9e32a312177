"""What torch.save wrote, as NumPy arrays in plain containers: without PyTorch, and nothing is run.

The pickle is interpreted here, opcode by opcode. What it names is neither imported nor called: a
few names are known, those of others are refused.
"""

import functools
import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from parity.contract.errors import CheckpointError

_TYPES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2",
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": "i8", "IntStorage": "i4",
    "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
"""The types of PyTorch's storages."""

_EIGHT_BITS = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
"""Types that PyTorch saves as bytes, with the name of the type beside them."""

_BUILDERS = {"collections OrderedDict", "torch Size"} | {
    f"torch._utils _rebuild_{name}"
    for name in ("tensor_v2", "tensor_v3", "parameter", "parameter_with_state")
}
_VALUES = {f"torch {name}" for name in _TYPES}
_VALUES |= {f"torch {name}" for name in (*_EIGHT_BITS, "float16", "bfloat16", "float32", "float64")}
_VALUES |= {"torch.storage UntypedStorage", "torch device"}
_DATA = {
    "_codecs encode", "argparse Namespace", "numpy dtype", "numpy.core.multiarray scalar",
    "numpy._core.multiarray scalar", "pathlib PosixPath", "pathlib WindowsPath",
    "pathlib._local PosixPath", "pathlib._local WindowsPath",
}  # fmt: skip
"""What people keep beside their weights: a loss as NumPy's number, options, paths."""


class Name(str):
    """What a pickle calls by the name of a module and of something in it."""

    __slots__ = ()


class Other:
    """A value that is not needed, and so is not made."""


def read_torch(content: bytes) -> Any:
    """Return what an archive of torch.save holds: dicts, lists, tuples, numbers, texts, arrays.

    The arrays are views of `content`, in PyTorch's strides: one may have any size and take no
    memory. CheckpointError: it is no such archive, damaged, would grow, or names what would be run.
    """
    if not content.startswith(b"PK\x03\x04"):
        raise CheckpointError(f"it is not a zip archive of torch.save but {kind_of(content)}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [entry.filename for entry in archive.infolist()]
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if any(name.endswith("/constants.pkl") for name in names):
            raise CheckpointError(
                "it is a program of TorchScript or torch.export; save its weights instead:"
                " torch.save(model.state_dict(), 'cnn.pt')"
            )
        _require_stored(archive, len(content))
        if len(roots) != 1:
            raise CheckpointError(
                f"it is a zip archive of {', '.join(names[:3]) or 'nothing'}, not one of torch.save"
            )
        [root] = roots
        big = f"{root}byteorder" in names and archive.read(f"{root}byteorder") == b"big"
        read = functools.cache(archive.read)  # several tensors may share a storage

        def storage(saved: Any) -> np.ndarray:
            match saved:
                case ("storage", Name() as kind, str() as key, str(), int() as size):
                    name = kind.split()[-1]
                    dtype = np.dtype(_TYPES.get(name, "u1")).newbyteorder(">" if big else "<")
                    values = np.frombuffer(read(f"{root}data/{key}"), dtype)
                    if len(values) == size:
                        return values
                    raise CheckpointError(f"it holds {len(values)} values of {name}, not {size}")
            raise CheckpointError("it refers to something else than a storage")

        return _interpreted(archive.read(f"{root}data.pkl"), storage)


def kind_of(content: bytes) -> str:
    """Return in words what a file that is no checkpoint is, by its first bytes."""
    kinds = {
        b"": "an empty file",
        b"PK": "a damaged zip archive",
        b"\x80": "a pickle (PyTorch before 1.6 wrote these too: where you trust it, load it with"
        " PyTorch and torch.save its state_dict again)",
        b"\x89HDF": "an HDF5 file, as Keras writes them",
        b"\x1f\x8b": "gzipped; unpack it first",
        b"version https://git-lfs": "a pointer of Git LFS; git lfs pull brings the file",
        b"\x93NUMPY": "one array of NumPy, without names",
        b"<": "a page of HTML or XML, perhaps of a download that failed",
        b"{": "JSON",
    }
    if not content:
        return kinds[b""]
    start = next((s for s in kinds if s and content.startswith(s)), None)
    return kinds[start] if start else "something else than a .safetensors or .pt"


def _require_stored(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse what torch.save did not write, is damaged, or would grow when it is read."""
    entries = archive.infolist()
    if any(entry.filename.endswith((".npy", ".h5")) for entry in entries):
        names = ", ".join(entry.filename for entry in entries[:3])
        raise CheckpointError(f"it is a zip archive of {names}, not one of torch.save")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError("it is compressed, which torch.save does not do")
    if sum(entry.file_size for entry in entries) > size:
        raise CheckpointError("it would grow when it is read")
    if len({entry.filename for entry in entries}) < len(entries):
        raise CheckpointError("it has two entries of one name")
    if damaged := archive.testzip():
        raise CheckpointError(f"it is damaged: the checksum of {damaged!r} differs")


_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
}  # fmt: skip
_PUSHES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip


_LONGEST = 2**22
"""Opcodes of a pickle: those of a model, its optimiser and 100,000 epochs are half as many."""


def _interpreted(pickled: bytes, storage: Callable[[Any], np.ndarray]) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    for opcode, value in _opcodes(pickled):
        match opcode.name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case name if name in _PUSHES:
                stack.append(value)
            case name if name in _MADE:
                stack.append(_MADE[name]())
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(_since(marks.pop(), stack)))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                stack.append(tuple(_since(-int(name[-1]), stack)))
            case "APPEND" | "APPENDS" as name:
                items = _since(marks.pop() if name == "APPENDS" else -1, stack)
                held: Any = stack[-1]
                list.extend(held, items)
            case "SETITEM" | "SETITEMS" as name:
                flat = iter(_since(marks.pop() if name == "SETITEMS" else -2, stack))
                if not isinstance(stack[-1], Other):
                    pairs = list(zip(flat, flat, strict=True))
                    if not all(isinstance(key, str | int | float | None) for key, _ in pairs):
                        raise CheckpointError("it has a key that is neither a name nor a number")
                    dict.update(stack[-1], pairs)
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                memo[len(memo) if value is None else int(str(value))] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[int(str(value))])
            case "GLOBAL":
                stack.append(_known(str(value)))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack.append(_known(f"{stack.pop()} {name}"))
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(_built(stack.pop(), arguments))
            case "BUILD":  # attributes, which no container or array needs
                stack.pop()
            case "BINPERSID":
                stack.append(storage(stack.pop()))
            case name:
                raise CheckpointError(f"its pickle has {name}, which torch.save does not write")
    [result] = stack
    return result


def _opcodes(pickled: bytes) -> Iterator[tuple[Any, Any]]:
    for number, (opcode, value, _) in enumerate(pickletools.genops(pickled)):
        if number > _LONGEST:
            raise CheckpointError(f"its pickle has more than {_LONGEST} steps")
        yield opcode, value


def _since(mark: int, stack: list[Any]) -> list[Any]:
    """Take off a stack what came after a mark."""
    taken = stack[mark:]
    del stack[mark:]
    return taken


def _known(name: str) -> Name:
    if name in _BUILDERS | _VALUES | _DATA:
        return Name(name)
    raise CheckpointError(
        f"it names {name.replace(' ', '.')}, and a file that does may run anything when it is"
        " loaded; where it was made, save no objects but what state_dict() returns:"
        " torch.save(model.state_dict(), 'cnn.pt')"
    )


def _built(name: Any, arguments: Any) -> Any:
    match name, arguments:
        case "collections OrderedDict", ():
            return {}
        case "torch Size", (tuple() as shape,):
            return shape
        case "torch._utils _rebuild_tensor_v2", (
            np.ndarray() as values, start, shape, strides, _, _, *more
        ):  # fmt: skip
            return _view(values, start, shape, strides, more)
        case "torch._utils _rebuild_tensor_v3", (
            np.ndarray() as values, start, shape, strides, _, _, Name() as kind, *more
        ):  # fmt: skip
            if (dtype := kind.split()[-1]) not in _EIGHT_BITS:
                raise CheckpointError(f"it has values of {dtype}")
            return _view(values, start, shape, strides, more).view(dtype)
        case (
            "torch._utils _rebuild_parameter" | "torch._utils _rebuild_parameter_with_state",
            (np.ndarray() as values, *_),
        ):
            return values
    if isinstance(name, Name) and name in _DATA | {"torch device"}:
        return Other()
    raise CheckpointError("its pickle builds something else than torch.save does")


_RANK, _LARGEST = 8, 2**40
"""The most axes of a tensor, and the largest place or size."""


def _view(values: np.ndarray, start: Any, shape: Any, strides: Any, more: Any) -> np.ndarray:
    """Return a tensor as a view of its storage, inside of which it must lie."""
    if any(more):
        raise CheckpointError("a tensor has a conjugate or negative bit; save a copy of it")
    if len(shape) > _RANK or len(shape) != len(strides):
        raise CheckpointError(f"a tensor has {len(shape)} axes and {len(strides)} strides")
    for number in (start, *shape, *strides):
        if type(number) is not int or not 0 <= number <= _LARGEST:
            raise CheckpointError(f"a tensor has {number!r} as a place or size")
    last = start + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= len(values):
        raise CheckpointError("a tensor reaches beyond its storage")
    steps = [step * values.itemsize for step in strides]
    begin = values[start:] if math.prod(shape) else values[:0]
    return np.lib.stride_tricks.as_strided(begin, shape, steps, writeable=False)


_MOST = 10_000
"""How many containers are looked into."""

_DEEPEST = 4
"""How many keys may lead to what is looked for."""


def mappings(tree: Any) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Yield each dict of a tree once, outermost first, with the keys that lead to it."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    seen: set[int] = set()
    for path, value in waiting:
        if not isinstance(value, dict | list | tuple) or id(value) in seen:
            continue
        seen.add(id(value))
        if len(seen) > _MOST:
            raise CheckpointError(f"it has more than {_MOST} dictionaries and lists")
        if isinstance(value, dict):
            yield ".".join(path), value
        if len(path) < _DEEPEST:
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [((*path, str(key)), item) for key, item in inner]
