"""What a run of JAX's side, fed with PyTorch's values, shows at each place."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.pairs.torch_side.recorded import Key

LAST_PLACES = 64
"""Units in the last place of an array's largest value that need no further explanation: mistakes
lie 4 to 12 decades above."""


def limit(scale: float) -> float:
    """Return the error that needs no further explanation in an array of this scale."""
    return LAST_PLACES * np.finfo(np.float64).eps * scale


@dataclass(frozen=True)
class Made:
    """An equation as it was evaluated."""

    equation: Any
    numbers: tuple[float | None, ...]
    """Its inputs that are one number."""
    callers: tuple[Any, ...]
    """The calls and loops that it is in, innermost last."""
    parents: frozenset[int]
    """Which of the equations evaluated before made its inputs."""


@dataclass
class Evidence:
    """How far JAX's value is from PyTorch's at one place, and what rounding explains of it."""

    key: Key
    place: int
    shape: tuple[int, ...]
    error: float
    scale: float
    arranged: tuple[str, dict[str, int]] = ("", {})
    """The pattern from PyTorch's layout to JAX's."""
    rounding: float = 0.0
    is_float: bool = True
    own: Any = None
    """JAX's value, kept where it is more than a few last places off."""
    equations: list[Made] = field(default_factory=list)
    """JAX's that it is made by, since the layers before it."""

    @property
    def size(self) -> float:
        """Of the error relative to scale."""
        return self.error / self.scale if self.scale else (0.0 if self.error == 0 else math.inf)

    @property
    def wrong(self) -> bool:
        """Whether it is more than rounding."""
        return not self.error <= self.rounding


@dataclass
class Forced:
    """JAX's run with PyTorch's values at each shared layer: evidence by place."""

    evidence: dict[tuple[Key, int], Evidence] = field(default_factory=dict)
    uncompared: list[str] = field(default_factory=list)
    again: dict[tuple[Key, int], int] = field(default_factory=dict)
    """Places of PyTorch's that JAX's layer is given once more, as in `attn(x, x, x)`."""
    opposite: set[tuple[Key, int]] = field(default_factory=set)
    """Masks that are true where PyTorch's are false."""
    calls: dict[str, int] = field(default_factory=dict)
    arrangements: dict[tuple[Key, int], tuple[str, dict[str, int]]] = field(default_factory=dict)

    def at(self, key: Key) -> list[Evidence]:
        """Return the evidence of all arrays of a key."""
        return [found for (of, _), found in self.evidence.items() if of == key]

    @property
    def wrong(self) -> list[Evidence]:
        """Those outside rounding."""
        return [found for found in self.evidence.values() if found.wrong]
