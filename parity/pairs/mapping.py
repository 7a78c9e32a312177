"""Which leaf of one side holds what which leaf of the other holds: found without a table."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from parity.pairs.leaves import Leaf, Use
from parity.pairs.patterns import inverse, patterns, rearranged
from parity.pairs.proof import MapRow

_WORDS = {
    "q": "query",
    "k": "key",
    "v": "value",
    "qkv": "querykeyvalue",
    "fc": "linear",
    "dense": "linear",
    "lin": "linear",
    "ln": "norm",
    "bn": "norm",
    "layernorm": "norm",
    "batchnorm": "norm",
    "rmsnorm": "norm",
    "groupnorm": "norm",
    "layer": "block",
    "layers": "block",
    "blocks": "block",
    "attn": "attention",
    "emb": "embed",
    "embedding": "embed",
    "embeddings": "embed",
    "enc": "encoder",
    "dec": "decoder",
    "wq": "query",
    "wk": "key",
    "wv": "value",
    "wo": "out",
    "o": "out",
    "output": "out",
    "proj": "out",
    "wte": "tok",
    "token": "tok",
    "wpe": "pos",
    "position": "pos",
    "cross": "cross",
    "experts": "expert",
    "router": "gate",
    "downsample": "shortcut",
    "skip": "shortcut",
}
_RIVALS = [
    {"query", "key", "value"},
    {"i", "f", "g", "out"},
    {"r", "z", "n"},
    {"gate", "up", "down"},
    {"encoder", "decoder"},
    {"ih", "hh"},
    {"tok", "pos", "cls"},
    {"self", "cross"},
    {"shortcut", "conv"},
    {"mean", "var"},
]
"""Words of which a name has one: another one speaks for another layer."""


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


@dataclass
class Map:
    """The rows, and what is in none of them."""

    rows: list[MapRow]
    alone_torch: list[str]
    alone_jax: list[str]
    choices: dict[int, list[tuple[str, dict[str, int]]]]
    """By row: further patterns that fit its shapes."""

    def jax_values(
        self, torch: Mapping[str, np.ndarray], jax: Mapping[str, Leaf]
    ) -> dict[str, np.ndarray]:
        """Return JAX's leaves with what the mapped ones of PyTorch hold, in float64."""
        found = {name: leaf.value.astype(np.float64) for name, leaf in jax.items()}
        for row in self.rows:
            value = rearranged(
                part_of(torch[row.torch], row.torch_part), row.pattern, dict(row.sizes)
            )
            if row.jax_part is None:
                found[row.jax] = value.astype(np.float64)
            else:
                part_of(found[row.jax], row.jax_part)[...] = value
        return found

    def to_torch(self, row: MapRow, value: np.ndarray) -> np.ndarray:
        """Return what a JAX leaf of a row holds, in PyTorch's layout of the row's part."""
        sizes = dict(row.sizes)
        return rearranged(part_of(value, row.jax_part), inverse(row.pattern), sizes)


def part_of(array: np.ndarray, part: tuple[int, int, int] | None) -> np.ndarray:
    """Return a view of part i of n equal ones along an axis."""
    if part is None:
        return array
    i, n, axis = part
    length = array.shape[axis] // n
    index = [slice(None)] * array.ndim
    index[axis] = slice(i * length, (i + 1) * length)
    return array[tuple(index)]


def find_map(
    torch: Mapping[str, Leaf],
    jax: Mapping[str, Leaf],
    torch_use: Mapping[str, Use],
    jax_use: Mapping[str, Use],
    given: Sequence[MapRow] = (),
) -> Map:
    """Find each leaf's twin by the order of use, sizes, kinds and names; `given` rows win."""
    taken_t, taken_j = {row.torch for row in given}, {row.jax for row in given}
    ours = {n: leaf for n, leaf in torch.items() if n not in taken_t}
    theirs = {n: leaf for n, leaf in jax.items() if n not in taken_j}
    sizes_t, sizes_j = (
        [math.prod(leaf.shape) for leaf in side.values()] for side in (ours, theirs)
    )
    units_t = _units(ours, torch_use, sizes_t, sizes_j, torch=True)
    units_j = _units(theirs, jax_use, sizes_j, sizes_t, torch=False)
    found = Map(list(given), [], [], {})
    left_t: list[Slot] = []
    left_j: list[Slot] = []
    matched = _assigned(units_t, units_j)
    for a, b in matched:
        for role in dict.fromkeys([*a.slots, *b.slots]):
            if role in a.slots and role in b.slots:
                _add_row(found, a.slots[role], b.slots[role], jax_use, "order and size")
        rest_a = [slot for role, slot in a.slots.items() if role not in b.slots]
        rest_b = [slot for role, slot in b.slots.items() if role not in a.slots]
        for slot in list(rest_a):
            twin = next((s for s in rest_b if math.prod(s.shape) == math.prod(slot.shape)), None)
            if twin is not None:
                _add_row(found, slot, twin, jax_use, "size")
                rest_a.remove(slot)
                rest_b.remove(twin)
        left_t += rest_a
        left_j += rest_b
    used_t, used_j = {id(a) for a, _ in matched}, {id(b) for _, b in matched}
    left_t += [s for u in units_t if id(u) not in used_t for s in u.slots.values()]
    left_j += [s for u in units_j if id(u) not in used_j for s in u.slots.values()]
    _match_alone(found, left_t, left_j, torch_use, jax_use)
    left_t.sort(key=lambda slot: _order(slot.leaf, torch_use))
    left_j.sort(key=lambda slot: _order(slot.leaf, jax_use))
    _stack(found, left_t, left_j, jax_use)
    found.alone_torch = list(dict.fromkeys(slot.leaf.name for slot in left_t))
    found.alone_jax = list(dict.fromkeys(slot.leaf.name for slot in left_j))
    return found


def _match_alone(
    found: Map,
    left_t: list[Slot],
    left_j: list[Slot],
    torch_use: Mapping[str, Use],
    jax_use: Mapping[str, Use],
) -> None:
    """Match leaves one by one where their layers do not fit, as for functions of parameters."""
    sides = []
    for slots, use in ((left_t, torch_use), (left_j, jax_use)):
        sides.append(
            sorted(
                (
                    Unit(
                        f"{slot.leaf.name}.{slot.part[0] if slot.part else ''}",
                        slot.leaf.kind,
                        _order(slot.leaf, use) + (slot.part[0] / 100 if slot.part else 0),
                        {slot.role: slot},
                    )
                    for slot in slots
                ),
                key=lambda unit: unit.order,
            )
        )
    for a, b in _assigned(*sides):
        (mine,), (other,) = a.slots.values(), b.slots.values()
        _add_row(found, mine, other, jax_use, "order, size and name")
        left_t.remove(mine)
        left_j.remove(other)


def _order(leaf: Leaf, use: Mapping[str, Use]) -> float:
    return use[leaf.name].order if leaf.name in use else math.inf


def _units(
    leaves: Mapping[str, Leaf],
    use: Mapping[str, Use],
    own: Sequence[int],
    other: Sequence[int],
    *,
    torch: bool,
) -> list[Unit]:
    """Return the layers' slots in the order of use; a leaf that the other side has in parts is cut.

    `own` and `other` are the sizes of the leaves of both sides.
    """
    units: dict[str, Unit] = {}
    cut = {
        leaf.owner: labels
        for leaf in leaves.values()
        if len(leaf.shape) >= 2 and (labels := _labels(leaf, own, other))
    }
    for name, leaf in leaves.items():
        order = _order(leaf, use)
        labels = cut.get(leaf.owner, ())
        axis = _cut_axis(leaf, len(labels), use.get(name), torch=torch) if labels else None
        which = re.search(r"_([ih]h)(_l\d+.*)?$", leaf.attribute)
        level = f".{which[2] or ''}" if which else ""
        if axis is not None and (leaf.role in ("weight", "bias") or "_" in leaf.attribute):
            for i, label in enumerate(labels):
                key = f"{leaf.owner}{level}.{which[1][0] if which else ''}{label}"
                unit = units.setdefault(key, Unit(key, "linear", order + i / 100, {}))
                role = "bias" if "bias" in leaf.attribute else "weight"
                unit.slots[role] = Slot(leaf, (i, len(labels), axis))
            continue
        key = f"{leaf.owner}{level}.{which[1]}" if which else leaf.owner
        role = leaf.attribute.split("_")[0] if which else leaf.role
        if leaf.kind == "other" and role not in ("weight", "bias"):
            key = name  # a parameter of its own
        unit = units.setdefault(key, Unit(key, leaf.kind, order, {}))
        unit.slots[role] = Slot(leaf)
        unit.order = min(unit.order, order)
    return sorted(units.values(), key=lambda unit: unit.order)


def _labels(leaf: Leaf, own: Sequence[int], other: Sequence[int]) -> Sequence[str]:
    """Return what the parts of a leaf are called, if the other side has its parts and not it."""
    size = math.prod(leaf.shape)
    if size in other:
        return ()
    name = leaf.name.lower()
    for n in (3, 2, 4):
        if size % n or sum(x == size // n for x in other) - sum(x == size // n for x in own) < n:
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


def _assigned(ours: list[Unit], theirs: list[Unit]) -> list[tuple[Unit, Unit]]:
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
            and _permutable(next(iter(a.slots.values())), next(iter(b.slots.values())))
        )
    return all(_permutable(a.slots[role], b.slots[role]) for role in common)


def _permutable(a: Slot, b: Slot) -> bool:
    return next(patterns(a.shape, b.shape), None) is not None


def _words(name: str) -> list[str]:
    text = re.sub(r"([a-z])([A-Z])", r"\1_\2", name)
    parts = [re.sub(r"\d+$", "", part) or part for part in re.split(r"[._\[\]'/]+", text.lower())]
    return [_WORDS.get(part, part) for part in parts if part]


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def _unlike(a: Unit, b: Unit) -> float:
    """Return how much the names, kinds and slots of two units speak against each other."""
    words_a, words_b = _words(a.name), _words(b.name)
    cost = 0.0
    for rivals in _RIVALS:
        has_a, has_b = rivals & set(words_a), rivals & set(words_b)
        if has_a and has_b:
            cost += -1 if has_a == has_b else 4
    cost += 0.5 * (a.kind != b.kind) + 0.5 * (set(a.slots) != set(b.slots))
    ratio = difflib.SequenceMatcher(None, " ".join(words_a), " ".join(words_b)).ratio()
    same = _numbers(a.name) == _numbers(b.name)
    return cost + 1.0 * (1 - ratio) + 0.3 * (not same)


def _add_row(found: Map, a: Slot, b: Slot, use: Mapping[str, Use], how: str) -> None:
    orders = _orders(a, b, use.get(b.leaf.name))
    options = list(
        dict.fromkeys((p, tuple(s.items())) for p, s in patterns(a.shape, b.shape, orders))
    )
    if not options:
        return
    known = use[b.leaf.name].axes if b.leaf.name in use else None
    pattern, sizes = options[0]
    if known is None and len(options) > 1:
        found.choices[len(found.rows)] = [(p, dict(s)) for p, s in options[1:]]
    found.rows.append(
        MapRow(
            torch=a.leaf.name,
            jax=b.leaf.name,
            pattern=pattern,
            torch_part=a.part,
            jax_part=b.part,
            sizes=dict(sizes),
            how=how,
        )
    )


def _orders(a: Slot, b: Slot, use: Use | None) -> list[tuple[int, ...]]:
    """Return the orders of PyTorch's axes to try first: as the program uses the leaf, or usual."""
    rank = len(a.shape)
    if rank < 2 or a.role not in ("weight", "kernel"):
        return []
    if use is not None and use.axes is not None and len(use.axes) == rank:
        flat = [axis for axes in use.axes for axis in axes]
        if sorted(flat) == list(range(len(b.shape))):
            places = [min(axes) if axes else 0 for axes in use.axes]
            if a.leaf.kind == "transposed":  # PyTorch's is (in, out, …)
                places[:2] = places[1::-1]
            return [tuple(int(i) for i in np.argsort(places, kind="stable"))]
    if a.leaf.kind in ("norm", "embedding"):
        return []
    if rank > 2:
        return [(*range(2, rank), 1, 0), (*range(2, rank), 0, 1)]
    return [(1, 0)]


def _stack(found: Map, ours: list[Slot], theirs: list[Slot], use: Mapping[str, Use]) -> None:
    """Match what is left: one leaf of a side with several of the other that it holds stacked."""
    for mine, other, torch_is_whole in ((ours, theirs, True), (theirs, ours, False)):
        for whole in list(mine):
            taken = _stackable(whole, [s for s in other if s.role == whole.role] or other)
            if not taken:
                continue
            axis, parts = taken
            for i, slot in enumerate(parts):
                cut = replace(whole, part=(i, len(parts), axis))
                pair = (cut, slot) if torch_is_whole else (slot, cut)
                _add_row(found, *pair, use, "stacked")
                other.remove(slot)
            mine.remove(whole)


def _stackable(whole: Slot, others: Sequence[Slot]) -> tuple[int, list[Slot]] | None:
    if whole.part is not None or not whole.shape:
        return None
    size = math.prod(whole.shape)
    for start in range(len(others)):
        one = math.prod(others[start].shape)
        if not one or size % one or size == one:
            continue
        n = size // one
        near = [s for s in others[start:] if math.prod(s.shape) == one][:n]
        axes: Iterable[int] = (0, *range(len(whole.shape) - 1, 0, -1))
        for axis in axes:
            if len(near) == n and whole.shape[axis] % n == 0:
                cut = replace(whole, part=(0, n, axis))
                if all(_permutable(cut, s) for s in near):
                    return axis, near
    return None
