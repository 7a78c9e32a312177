"""What a model holds, whatever its framework: arrays with a name, and the layers that own them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_KINDS = {
    "transposed": r"conv.*transpose",
    "convolution": r"conv",
    "norm": r"norm",
    "embedding": r"embed",
    "attention": r"multi_?head|attention",
    "recurrent": r"lstm|gru|rnn",
    "linear": r"linear|dense|einsum",
}
_ROLES = {
    "weight": r"weight|kernel|embedding|scale|gamma|w|in_proj_weight|weight_[ih]h.*",
    "bias": r"bias|b|beta|in_proj_bias|bias_[ih]h.*",
    "mean": r"((running|moving)_)?(mean|average)",
    "var": r"((running|moving)_)?(var|variance)",
}


def kind_of(class_name: str) -> str:
    """Return what kind of layer a class is by its name: the same word in every framework."""
    name = class_name.lower()
    return next((kind for kind, text in _KINDS.items() if re.search(text, name)), "other")


@dataclass(frozen=True)
class Leaf:
    """An array of a model, by name."""

    name: str
    """Path with dots, as `blocks.0.fc1.weight`."""
    value: np.ndarray
    """As the user gave it."""
    kind: str
    """Of the layer that owns it."""
    trained: bool = True
    """False for a buffer, as a running mean."""

    @property
    def owner(self) -> str:
        """The layer's name."""
        return self.name.rpartition(".")[0]

    @property
    def attribute(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]

    @property
    def role(self) -> str:
        """What it is in its layer: the same word in every framework, if the name is a usual one."""
        name = self.attribute.lower()
        return next((role for role, text in _ROLES.items() if re.fullmatch(text, name)), name)

    @property
    def vanishing(self) -> float | None:
        """The value with which it does nothing; None if it has none."""
        if self.role == "bias":
            return 0.0
        return 1.0 if self.role == "weight" and self.kind == "norm" else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.value.shape


@dataclass(frozen=True)
class Node:
    """A layer that is called, and everything that it holds."""

    name: str
    kind: str
    leaves: tuple[str, ...]
    """Names of its leaves and of those below it."""
    order: int
    """Of its first call."""


def drawn(leaf: Leaf, rng: np.random.Generator) -> np.ndarray:
    """Return new numbers for a leaf, in float64, so that nothing hides behind zeros or ones.

    Weights keep values of order one (variance 1 / fan-in); a scale lies around one; what has no
    usual name is moved from what it is by a tenth of its size.
    """
    shape, given = leaf.shape, leaf.value.astype(np.float64)
    if leaf.role == "var":
        return rng.uniform(0.5, 2.0, shape)
    if leaf.role in ("mean", "bias"):
        return rng.normal(0, 0.3, shape)
    if leaf.role == "weight" and leaf.kind == "norm":
        return rng.uniform(0.5, 1.5, shape)
    if leaf.kind == "embedding" and len(shape) == 2:
        return rng.normal(0, 1, shape)
    if len(shape) >= 2 and given.size and np.std(given) > 0:
        fan_in = given.size / max(shape[0], shape[-1])
        return rng.normal(0, fan_in**-0.5, shape)
    spread = (
        max(float(np.std(given)), 0.1 * float(np.abs(given).mean()) or 0.3) if given.size else 0
    )
    moved = given + rng.normal(0, max(spread, 0.1), shape)
    return np.where(given > 0, np.abs(moved), moved) if (given > 0).all() else moved


def nodes_of(
    calls: Mapping[str, str], leaves: Mapping[str, Leaf], aliases: Mapping[str, tuple[str, ...]]
) -> dict[str, Node]:
    """Return the called layers, in the order of their first calls, with all leaves below each.

    `calls` maps the names of called layers to their classes' names, `aliases` a layer to leaves
    that it owns under another layer's name.
    """
    found = {}
    for order, (name, class_name) in enumerate(calls.items()):
        start = name + "." if name else ""
        below = [leaf for leaf in leaves if leaf.startswith(start)]
        extra = [
            alias
            for owner, names in aliases.items()
            for alias in names
            if owner == name or owner.startswith(start)
        ]
        found[name] = Node(name, kind_of(class_name), tuple(dict.fromkeys([*below, *extra])), order)
    return found


@dataclass(frozen=True)
class Stack:
    """A scan over the layers that a leaf holds along its first axis."""

    length: int
    first: float
    """When the scan begins."""
    span: float
    """How long one turn takes, in the same unit."""

    def order(self, use: float, turn: int) -> float:
        """Return when the turn's part is used, where `use` says when the first is."""
        return self.first + self.span * (turn + (use - self.first) / self.span) / self.length


@dataclass(frozen=True)
class Use:
    """Where in its program a leaf is first used, and how."""

    order: float
    axes: tuple[tuple[int, ...], ...] | None = None
    """The leaf's axes as (out, in, …), if the operation that uses it tells them apart."""
    stack: Stack | None = None


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a nested dict of values by the dots in their names."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        inner = tree
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return tree
