"""Which leaf of one side holds what which leaf of the other holds: found without a table."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import einops
import numpy as np

from parity.pairs.mapping.leaves import Leaf, Use
from parity.pairs.mapping.patterns import inverse, patterns, rearranged
from parity.pairs.mapping.units import PART, Slot, Unit, assigned, order_of, permutable, units_of
from parity.pairs.proof import MapRow


@dataclass
class Map:
    """The rows, and what is in none of them."""

    rows: list[MapRow]
    alone_torch: list[str]
    alone_jax: list[str]
    choices: dict[int, list[tuple[str, dict[str, int]]]]
    """By row: further patterns that fit its shapes."""
    given: int = 0
    """How many rows, the first, are the user's, and stay as they are."""

    def jax_values(
        self, torch: Mapping[str, np.ndarray], jax: Mapping[str, Leaf]
    ) -> dict[str, np.ndarray]:
        """Return JAX's leaves with what the mapped ones of PyTorch hold, in float64.

        They are views of PyTorch's where a pattern allows it.
        """
        whole = {row.jax for row in self.rows if row.jax_part is None}
        found = {n: leaf.value.astype(np.float64) for n, leaf in jax.items() if n not in whole}
        for row in self.rows:
            part = np.asarray(part_of(torch[row.torch], row.torch_part))
            value = einops.rearrange(part, row.pattern, **dict(row.sizes))
            if row.jax_part is None:
                found[row.jax] = np.asarray(value, np.float64)
            else:
                part_of(found[row.jax], row.jax_part)[...] = value
        return {name: found[name] for name in jax}

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
    shapes_t, shapes_j = ([leaf.shape for leaf in side.values()] for side in (ours, theirs))
    units_t = units_of(ours, torch_use, shapes_t, shapes_j, torch=True)
    units_j = units_of(theirs, jax_use, shapes_j, shapes_t, torch=False)
    found = Map(list(given), [], [], {}, len(given))
    left_t: list[Slot] = []
    left_j: list[Slot] = []
    matched = assigned(units_t, units_j)
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
    _match_alone(found, left_t, left_j, torch_use, jax_use, of_any_kind=True)
    left_t.sort(key=lambda slot: order_of(slot.leaf, torch_use))
    left_j.sort(key=lambda slot: order_of(slot.leaf, jax_use))
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
    *,
    of_any_kind: bool = False,
) -> None:
    """Match leaves one by one where their layers do not fit, as for functions of parameters.

    `of_any_kind` is for the rest: an embedding may be the weight of a linear layer of the other
    side, where both use it as both.
    """
    sides = []
    for slots, use in ((left_t, torch_use), (left_j, jax_use)):
        sides.append(
            sorted(
                (
                    Unit(
                        f"{slot.leaf.name}.{slot.part[0] if slot.part else ''}",
                        "other" if of_any_kind else slot.leaf.kind,
                        order_of(slot.leaf, use) + (slot.part[0] * PART if slot.part else 0),
                        {slot.role: slot},
                    )
                    for slot in slots
                ),
                key=lambda unit: unit.order,
            )
        )
    for a, b in assigned(*sides):
        (mine,), (other,) = a.slots.values(), b.slots.values()
        _add_row(found, mine, other, jax_use, "order, size and name")
        left_t.remove(mine)
        left_j.remove(other)


def _add_row(found: Map, a: Slot, b: Slot, use: Mapping[str, Use], how: str) -> None:
    orders = _orders(a, b, use.get(b.leaf.name))
    options = list(
        dict.fromkeys((p, tuple(s.items())) for p, s in patterns(a.shape, b.shape, orders))
    )
    if not options:
        return
    known = use[b.leaf.name].axes if b.leaf.name in use else None
    pattern, sizes = options[0]
    # JAX's use tells its axes; PyTorch's follow for its own layers, not for a matrix of a function
    if (known is None or a.leaf.kind == "other") and len(options) > 1:
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
        own = [axis for axis, length in enumerate(b.shape) if axis or length > 1 or 0 in flat]
        if sorted(flat) == own:  # a part of stacked layers has an axis that its use has not
            part = b.part[2] if b.part and b.shape[b.part[2]] == 1 else None
            within = [[axis for axis in axes if axis != part] or axes for axes in use.axes]
            places = [min(axes) if axes else 0 for axes in within]
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
    """Return the axis along which a leaf holds others, and these: numbered ones come first."""
    if whole.part is not None or not whole.shape:
        return None
    size = math.prod(whole.shape)
    near = []
    for start, first in enumerate(others):
        one = math.prod(first.shape)
        if one and size % one == 0 and size != one:
            alike = [s for s in others[start:] if math.prod(s.shape) == one]
            near.append(alike[: size // one])
    axes: Iterable[int] = (0, *range(len(whole.shape) - 1, 0, -1))
    for parts in [*_numbered(whole, others), *near]:
        n = size // (math.prod(parts[0].shape) or 1)
        for axis in axes:
            if 1 < n == len(parts) and whole.shape[axis] % n == 0:
                cut = replace(whole, part=(0, n, axis))
                if all(permutable(cut, s) for s in parts):
                    return axis, parts
    return None


def _numbered(whole: Slot, others: Sequence[Slot]) -> list[list[Slot]]:
    """Return the leaves whose names differ in one number, those named like the whole first."""
    groups: dict[tuple[str, ...], list[Slot]] = {}
    for slot in others:
        words = slot.leaf.name.split(".")
        for place, word in enumerate(words):
            if word.isdecimal():
                groups.setdefault((*words[:place], "*", *words[place + 1 :]), []).append(slot)
    named = set(whole.leaf.name.split("."))
    return [groups[key] for key in sorted(groups, key=lambda key: -len(named & set(key)))]
