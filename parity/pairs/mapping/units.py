"""What may be mapped: leaves, or parts of them, that belong together, and how alike they are."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from parity.pairs.mapping.leaves import Leaf, Stack, Use
from parity.pairs.mapping.names import unlike
from parity.pairs.mapping.patterns import patterns

_NORM = {"weight", "bias", "mean", "var"}
"""Roles of a normalisation's leaves, which have one shape."""
PART = 1e-4
"""How much later than the one before a part of a leaf is used, in operations."""


@dataclass(frozen=True)
class Slot:
    """A leaf, or one of equal parts of it along an axis."""

    leaf: Leaf
    part: tuple[int, int, int] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the part."""
        if self.part is None:
            return self.leaf.shape
        _, n, axis = self.part
        return tuple(s // n if a == axis else s for a, s in enumerate(self.leaf.shape))

    @property
    def role(self) -> str:
        """Of its leaf."""
        return self.leaf.role


@dataclass
class Unit:
    """The slots of a layer that belong together."""

    name: str
    kind: str
    order: float
    slots: dict[str, Slot]

    @property
    def size(self) -> int:
        """Of its largest slot."""
        return max(math.prod(slot.shape) for slot in self.slots.values())


def order_of(leaf: Leaf, use: Mapping[str, Use]) -> float:
    """Return when a leaf is first used; infinity if never."""
    return use[leaf.name].order if leaf.name in use else math.inf


def units_of(
    leaves: Mapping[str, Leaf],
    use: Mapping[str, Use],
    own: Sequence[tuple[int, ...]],
    other: Sequence[tuple[int, ...]],
    *,
    torch: bool,
) -> list[Unit]:
    """Return the layers' slots in the order of use; a leaf that the other side has in parts is cut.

    `own` and `other` are the shapes of the leaves of both sides.
    """
    units: dict[str, Unit] = {}
    cut = {
        leaf.owner: labels
        for leaf in leaves.values()
        if len(leaf.shape) >= 2 and (labels := _labels(leaf, _biases(leaf, leaves), own, other))
    }
    for name, leaf in leaves.items():
        order = order_of(leaf, use)
        if (stack := _stack_of(leaf, use, other)) is not None:
            for i in range(stack.length):
                key = f"{leaf.owner if leaf.role in ('weight', 'bias') else name}.{i}"
                when = stack.order(order, i)
                unit = units.setdefault(key, Unit(key, leaf.kind, when, {}))
                unit.slots[leaf.role] = Slot(leaf, (i, stack.length, 0))
                unit.order = min(unit.order, when)
            continue
        labels = cut.get(leaf.owner, ())
        axis = _cut_axis(leaf, len(labels), use.get(name), torch=torch) if labels else None
        which = re.search(r"_([ih]h)(_l\d+.*)?$", leaf.attribute)
        level = f".{which[2] or ''}" if which else ""
        if axis is not None and (leaf.role in ("weight", "bias") or "_" in leaf.attribute):
            for i, label in enumerate(labels):
                key = f"{leaf.owner}{level}.{which[1][0] if which else ''}{label}"
                unit = units.setdefault(key, Unit(key, "linear", order + i * PART, {}))
                role = "bias" if leaf.role == "bias" or "bias" in leaf.attribute else "weight"
                unit.slots[role] = Slot(leaf, (i, len(labels), axis))
            continue
        key = f"{leaf.owner}{level}.{which[1]}" if which else leaf.owner
        role = leaf.attribute.split("_")[0] if which else leaf.role
        if leaf.kind == "other" and role not in ("weight", "bias"):
            key = name  # a parameter of its own
        if key in units and role in units[key].slots:
            key = name  # the scale of a normalisation, beside a kernel
        unit = units.setdefault(key, Unit(key, leaf.kind, order, {}))
        unit.slots[role] = Slot(leaf)
        unit.order = min(unit.order, order)
    return sorted(units.values(), key=lambda unit: unit.order)


def _stack_of(leaf: Leaf, use: Mapping[str, Use], other: Sequence[tuple[int, ...]]) -> Stack | None:
    """Return the scan over a leaf's parts, if the other side has them one by one."""
    stack = use[leaf.name].stack if leaf.name in use else None
    if stack is None or not leaf.shape or leaf.shape[0] != stack.length:
        return None
    size = math.prod(leaf.shape) // stack.length
    return stack if sum(math.prod(x) == size for x in other) >= stack.length else None


def _biases(leaf: Leaf, leaves: Mapping[str, Leaf]) -> list[int]:
    """Return the lengths of the vectors of a leaf's layer."""
    return [len(x.value) for x in leaves.values() if x.owner == leaf.owner and len(x.shape) == 1]


def _labels(
    leaf: Leaf,
    biases: Sequence[int],
    own: Sequence[tuple[int, ...]],
    other: Sequence[tuple[int, ...]],
) -> Sequence[str]:
    """Return what the parts of a leaf are called, if the other side has its parts and not it.

    It has as many leaves of the same axes, or of the same size; where it has fewer, a layer whose
    bias it has is whole.
    """
    size = math.prod(leaf.shape)
    axes, axes_own = (
        [sorted(shape) for shape in side].count(sorted(leaf.shape)) for side in (other, own)
    )
    if axes and (axes >= axes_own or not biases or any((n,) in other for n in biases)):
        return ()
    sizes, others = [*map(math.prod, own)], [*map(math.prod, other)]
    if size in others and others.count(size) >= sizes.count(size):
        return ()
    name = leaf.name.lower()
    for n in (3, 2, 4):
        if size % n or others.count(size // n) - sizes.count(size // n) < n:
            continue
        if n == 4 or re.search(r"weight_[ih]h", name):
            return {4: ("i", "f", "g", "o"), 3: ("r", "z", "n")}.get(n, ("0", "1"))
        if n == 3 and len(leaf.shape) == 2:
            return ("query", "key", "value")
        if n == 2 and ("kv" in name or "gate" in name):
            return ("key", "value") if "kv" in name else ("gate", "up")
        return tuple(map(str, range(n)))
    return ()


def _cut_axis(leaf: Leaf, n: int, use: Use | None, *, torch: bool) -> int | None:
    """Return the axis that the parts lie along: of their number, or of the outputs."""
    axes: list[int] = [0] if torch else [a for a, length in enumerate(leaf.shape) if length == n]
    if not torch and use is not None and use.axes:
        axes += use.axes[0]
    axes += range(len(leaf.shape) - 1, -1, -1)
    return next((axis for axis in axes if leaf.shape[axis] % n == 0), None)


def assigned(ours: list[Unit], theirs: list[Unit]) -> list[tuple[Unit, Unit]]:
    """Return the pairs of units that fit, at the least cost over all of them."""
    if not ours or not theirs:
        return []
    far = 1e6
    cost = np.full((len(ours), len(theirs)), far)
    rank_a, rank_b = _ranks(ours), _ranks(theirs)
    for i, a in enumerate(ours):
        for k, b in enumerate(theirs):
            if _fit(a, b):
                cost[i, k] = _unlike(a, b) + min(abs(rank_a[i] - rank_b[k]), 6)
    rows, columns = linear_sum_assignment(cost)
    pairs = zip(rows, columns, strict=True)
    return [(ours[i], theirs[k]) for i, k in pairs if cost[i, k] < far]


def _ranks(units: list[Unit]) -> list[int]:
    """Return each unit's place among those of its size."""
    count: dict[Any, int] = {}
    found = []
    for unit in units:
        found.append(count.get(unit.size, 0))
        count[unit.size] = found[-1] + 1
    return found


def _fit(a: Unit, b: Unit) -> bool:
    """Whether all slots that both have can be rearranged into each other, and one of them is."""
    if {"norm", "embedding", "convolution", "transposed"} & {a.kind, b.kind} and a.kind != b.kind:
        known = {a.kind, b.kind} <= {"norm", "embedding", "linear"}
        if known or ("convolution" in (a.kind, b.kind) and "norm" in (a.kind, b.kind)):
            return False
    common = set(a.slots) & set(b.slots)
    if not common or (a.size != b.size):
        return (
            len(a.slots) == len(b.slots) == 1
            and a.size == b.size
            and permutable(next(iter(a.slots.values())), next(iter(b.slots.values())))
        )
    return all(permutable(a.slots[role], b.slots[role]) for role in common)


def permutable(a: Slot, b: Slot) -> bool:
    """Whether one slot's array can be rearranged into the other's."""
    return next(patterns(a.shape, b.shape), None) is not None


def _unlike(a: Unit, b: Unit) -> float:
    """Return how much the names, kinds and slots of two units speak against each other."""
    cost = 0.5 * (a.kind != b.kind) + 0.5 * (set(a.slots) != set(b.slots))
    if {*a.slots, *b.slots} <= _NORM and not set(a.slots) & set(b.slots):
        cost += 4
    return cost + unlike(a.name, b.name)
