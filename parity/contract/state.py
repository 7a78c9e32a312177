"""The canonical layout of parameters and Adam state, PyTorch's; and the initial one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from parity.contract.batches import random_stream
from parity.contract.errors import StateError
from parity.contract.recipe import DType


class Parameter(NamedTuple):
    """Shape of one parameter, and the number of inputs that one output of its layer sums."""

    shape: tuple[int, ...]
    fan_in: int


PARAMETERS = {
    "conv1.weight": Parameter((16, 1, 3, 3), fan_in=9),
    "conv1.bias": Parameter((16,), fan_in=9),
    "fc1.weight": Parameter((10, 2704), fan_in=2704),
    "fc1.bias": Parameter((10,), fan_in=2704),
}

Arrays = dict[str, np.ndarray]
"""One array for each name of PARAMETERS, in canonical layout."""

_GROUPS = {"adam.m": "adam_m", "adam.v": "adam_v", "params": "params"}
"""The first part of an array's full name, and the field of State that holds the array."""


@dataclass(frozen=True, kw_only=True)
class State:
    """All that a training step reads and writes, in canonical layout.

    Raises:
        StateError: names, shapes or dtypes are not those of PARAMETERS.
    """

    params: Arrays
    """Weights and biases."""
    adam_m: Arrays
    """Adam's first moments: running means of the gradients."""
    adam_v: Arrays
    """Adam's second moments: running means of the squared gradients."""
    step: int
    """Updates made so far."""

    def __post_init__(self) -> None:
        dtype = self.dtype
        for what in ("params", "adam_m", "adam_v"):
            arrays: Arrays = getattr(self, what)
            missing = [name for name in PARAMETERS if name not in arrays]
            extra = [name for name in arrays if name not in PARAMETERS]
            if missing or extra:
                differ = f"missing {missing or 'nothing'}, unknown {extra or 'nothing'}"
                raise StateError(f"{what}: {differ}")
            if dtype not in (np.float32, np.float64):
                raise StateError(f"{what}: dtype must be float32 or float64, got {dtype}")
            for name, (shape, _) in PARAMETERS.items():
                got, expected = arrays[name], f"expected {dtype} {shape}"
                if got.shape != shape or got.dtype != dtype:
                    raise StateError(f"{what}.{name}: {expected}, got {got.dtype} {got.shape}")
        if self.step < 0:
            raise StateError(f"step must be at least 0, got {self.step}")

    def __repr__(self) -> str:
        return f"<State {self.dtype}, {self.step} steps made>"

    def named(self) -> Arrays:
        """Return all arrays by their full names: adam.m.conv1.weight, adam.v.…, params.…."""
        return {
            f"{prefix}.{name}": getattr(self, group)[name]
            for prefix, group in _GROUPS.items()
            for name in PARAMETERS
        }

    @classmethod
    def from_named(cls, arrays: Mapping[str, np.ndarray], *, step: int) -> "State":
        """Return the state whose `named()` gives these arrays; raise StateError for others."""
        groups: dict[str, Arrays] = {group: {} for group in _GROUPS.values()}
        for full_name, array in arrays.items():
            prefix = next((p for p in _GROUPS if full_name.startswith(f"{p}.")), None)
            if prefix is None:
                raise StateError(f"{full_name!r} begins with none of {', '.join(_GROUPS)}")
            groups[_GROUPS[prefix]][full_name.removeprefix(f"{prefix}.")] = array
        return cls(**groups, step=step)

    def astype(self, dtype: DType) -> "State":
        """Return a copy with every array in another precision."""
        arrays = {name: array.astype(dtype) for name, array in self.named().items()}
        return State.from_named(arrays, step=self.step)

    @property
    def dtype(self) -> np.dtype:
        """The floating-point type that all arrays share."""
        return next(iter(self.params.values())).dtype if self.params else np.dtype(np.float32)


def initial_state(seed: int, dtype: DType = "float32") -> State:
    """Return the state that every backend starts from.

    Parameters are U(-1/sqrt(fan_in), 1/sqrt(fan_in)), weights and biases, as PyTorch's `Conv2d`
    and `Linear` draw them; the moments are zero. The values are float32 numbers in either dtype.
    """
    stream = random_stream(seed, 0)
    params = {}
    for name, (shape, fan_in) in PARAMETERS.items():
        bound = 1 / np.sqrt(fan_in)
        params[name] = stream.uniform(-bound, bound, shape).astype(np.float32).astype(dtype)
    adam_m, adam_v = ({name: np.zeros_like(p) for name, p in params.items()} for _ in range(2))
    return State(params=params, adam_m=adam_m, adam_v=adam_v, step=0)
