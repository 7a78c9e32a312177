"""What a user brings: a PyTorch model, or function, and the JAX one that should equal it."""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

import numpy as np

from parity.contract.errors import CnnParityError
from parity.pairs.torch_side.recording import Recording, read_recording

T = TypeVar("T")


class PairError(CnnParityError):
    """A pair cannot be proved as it is: it says what is missing or does not fit."""


@dataclass(frozen=True)
class Accept:
    """A difference that is meant: it is reported each time, and does not count."""

    name: str
    """The cause that the report names, as `gelu-tanh`."""
    at: str = "*"
    """The layers that it is accepted at: PyTorch's name of one, or a pattern of `fnmatch`."""
    because: str = ""
    """Why it is meant."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A PyTorch model or function, the JAX one that should equal it, and what they are called with.

    PairError: a field has a value that no pair can have.
    """

    torch: Any = None
    """An `nn.Module`, or a function of tensors; or a `Recording` of one."""
    jax: Any = None
    """An `nnx.Module`; (Linen module, variables); (function of parameters and inputs, parameters),
    where the parameters are a pytree of arrays; a pytree with `__call__`, as Equinox's modules are;
    or a function of arrays."""
    inputs: Sequence[np.ndarray] = ()
    """The inputs of both, in PyTorch's layout."""
    call_torch: Callable[..., Any] | None = None
    """Calls the model: (model, *inputs) → arrays, or nested tuples, lists and dicts of them."""
    call_jax: Callable[..., Any] | None = None
    """Likewise for JAX. A Linen module comes bound to its variables, a function to its
    parameters, so that both are called as `net(*inputs)`."""
    loss: tuple[Callable[..., Any], Callable[..., Any]] | None = None
    """PyTorch's and JAX's loss: (outputs, *targets) → scalar."""
    targets: Sequence[np.ndarray] = ()
    """What the losses compare outputs with."""
    optimizer: tuple[Callable[..., Any], Any] | None = None
    """(parameters) → a `torch.optim.Optimizer`, or it and its schedule; an Optax transformation."""
    steps: int = 3
    """Steps of the training that is compared, if there are `loss` and `optimizer`."""
    accept: Sequence[Accept] = ()
    """Differences that are meant."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the user computes in: a part that is less precise than this, on one side only, is a
    difference."""
    train_torch: Callable[..., Any] | None = None
    """As `call_torch`, in training; by default the same call of the module in train mode."""
    train_jax: Callable[..., Any] | None = None
    """As `call_jax`, in training; a Linen module may change its other collections."""

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            value = getattr(self, name)
            if not isinstance(value, tuple | list):
                raise PairError(f"Pair: {name} is {type(value).__name__}; give a tuple of arrays")
            object.__setattr__(self, name, tuple(np.asarray(array) for array in value))
        for array in (*self.inputs, *self.targets):
            if array.dtype.kind not in "fiub":
                raise PairError(f"Pair: an input is {array.dtype}; give arrays of numbers")
        for name in ("torch", "jax"):
            value = getattr(self, name)
            if not callable(value) and not isinstance(value, tuple | Recording | None):
                kind = type(value).__name__
                raise PairError(f"Pair: {name} is {kind}, which cannot be called")
        if self.optimizer is not None and self.loss is None:
            raise PairError("Pair: an optimizer needs a loss; give loss=(torch_loss, jax_loss)")
        for name in ("loss", "optimizer"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, tuple | list) and len(value) == 2):
                raise PairError(f"Pair: {name} has to be a tuple of two, PyTorch's and JAX's")
        if self.torch is None and self.jax is None:
            raise PairError("Pair: it has no side; give torch=, jax=, or both")
        if self.steps < 1:
            raise PairError(f"Pair: steps is {self.steps}; give at least 1")

    def __repr__(self) -> str:
        names = [getattr(x, "__name__", type(x).__name__) for x in (self.torch, self.jax)]
        return f"<Pair {names[0]} in PyTorch, {names[1]} in JAX, {len(self.inputs)} inputs>"


def load_pair(text: str) -> Pair:
    """Return the pair that FILE[:NAME] names; FILE is a path to a .py or a module's name.

    NAME is a `Pair` or a function that returns one, by default `pair`. PairError: there is none.
    """
    file, colon, name = text.rpartition(":")
    if not colon or "/" in name or name.endswith(".py"):
        file, name = text, "pair"
    found = getattr(_import(file), name, None)
    if found is None:
        raise PairError(f"{file} has no {name!r}; give FILE:NAME of a Pair or of a function")
    if isinstance(found, Pair):
        return found
    if not callable(found):
        raise PairError(f"{name} in {file} is {type(found).__name__}, no Pair and no function")
    with user_code(f"{name} of {file}"):
        made = found()
    if not isinstance(made, Pair):
        raise PairError(f"{name}() of {file} returns {type(made).__name__}, no Pair")
    return made


def against(pair: Pair, file: Path) -> Pair:
    """Return a pair with the recording of a file as its PyTorch side, and the inputs of that.

    RecordingError: it is no recording; PairError: the pair's inputs are others.
    """
    recording = read_recording(file)
    both = list(zip(pair.inputs, recording.inputs, strict=False))
    other = len(pair.inputs) != len(recording.inputs) or any(
        a.dtype != b.dtype or not np.array_equal(a, b) for a, b in both
    )
    if pair.inputs and other:
        raise PairError(f"{file} was recorded with other inputs; leave inputs out, or record anew")
    return replace(pair, torch=recording, inputs=recording.inputs)


@contextlib.contextmanager
def user_code(what: str) -> Iterator[None]:
    """Name what of the user's failed; the traceback stays with the error for `--debug`."""
    try:
        yield
    except SystemExit as error:
        raise PairError(f"{what} ends the process") from error
    except CnnParityError:
        raise
    except MemoryError as error:
        raise PairError(f"{what} is out of memory; give smaller inputs") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise PairError(f"{what} fails: {type(error).__name__}: {reason}") from error


def required(value: T | None, name: str) -> T:
    """Return a part of a pair that not every one has; PairError where this one has not."""
    if value is None:
        raise PairError(f"the pair has no {name}; give one")
    return value


def _import(file: str) -> ModuleType:
    path = Path(file)
    if path.suffix != ".py":
        with user_code(file):
            return importlib.import_module(file)
    if not path.is_file():
        raise PairError(f"{file} is no file; give a .py, or a module's name")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise PairError(f"{file} cannot be imported; give a .py, or a module's name")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    before = sys.modules.get(path.stem)
    sys.path.insert(0, folder)  # as for a script: its neighbours can be imported
    sys.modules[path.stem] = module  # dataclasses look their module up there
    try:
        with user_code(file):
            spec.loader.exec_module(module)
    except PairError:
        if before is None:
            del sys.modules[path.stem]
        else:
            sys.modules[path.stem] = before
        raise
    finally:
        sys.path.remove(folder)
    return module
