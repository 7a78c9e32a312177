"""The map settled by the outcome, where names and shapes leave it open."""

import itertools
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np

from parity.pairs.case import Case, Progress
from parity.pairs.forward.evidence import Evidence, Forced
from parity.pairs.mapping.layers import Layer, plain
from parity.pairs.mapping.names import unlike
from parity.pairs.mapping.patterns import behind_flatten
from parity.pairs.proof import MapRow
from parity.pairs.torch_side.recorded import Key


def repair(case: Case, progress: Progress) -> None:
    """Settle by the outcome what names and shapes leave open, layer by layer.

    A layer whose output is far off gets the other patterns of its leaves, and the leaves of other
    layers of its shape; what makes it agree to rounding is kept.
    """
    _flattened(case)
    _unflattened(case)
    for layer in list(case.layers):
        if not _far(case, layer):
            continue
        progress(f"probing {layer.torch}", 1, 4)
        for rows in itertools.islice(_options(case, layer), 40):
            before = case.map.rows
            case.map.rows = rows
            tried = case.force()
            if sum(e.wrong for e in tried.evidence.values()) < sum(
                e.wrong for e in case.forced.evidence.values()
            ) and not any(e.wrong for e in _outs(tried, layer)):
                case.forced = tried
                break
            case.map.rows = before
    _rewired(case)
    if not case.jax.calls and case.forced.wrong:
        _without_layers(case)


def _outs(forced: Forced, layer: Layer) -> list[Evidence]:
    return [
        e for (key, _), e in forced.evidence.items() if key[0] == layer.torch and key[1] == "out"
    ]


def _far(case: Case, layer: Layer) -> bool:
    return any(e.wrong and e.size > 1e-3 for e in _outs(case.forced, layer))


def _flattened(case: Case) -> None:
    """Permute the inputs of a linear layer's weights where its input was flattened otherwise."""
    changed = False
    for (key, _), (pattern, sizes) in case.forced.arrangements.items():
        found = re.search(r"\(([^)]*)\) -> .*\(([^)]*)\)$", pattern)
        if not found or key[1] != "in":
            continue
        atoms, after = found[1].split(), found[2].split()
        if sorted(atoms) != sorted(after) or atoms == after or len(atoms) < 2:
            continue
        order = [atoms.index(atom) for atom in after]
        full = [*(sizes[a] for a in atoms[:-1]), -1]
        for place, row in _found(case):
            shape = case.torch.leaves[row.torch].shape
            if (
                row.torch.startswith(plain(key[0]) + ".")
                and len(shape) == 2
                and "(" not in row.pattern
            ):
                full[-1] = shape[1] // int(np.prod(full[:-1]))
                pattern_, sizes_ = behind_flatten(row.pattern, 1, full, order)
                case.map.rows[place] = replace(
                    row, pattern=pattern_, sizes=sizes_, how=f"{row.how}; behind a flatten"
                )
                changed = True
    if changed:
        case.forced = case.force()


def _unflattened(case: Case) -> None:
    """Permute the outputs of a linear layer where they are made an image in another order.

    That of the layer alone, or of all leaves of this length, as a normalisation's behind it.
    """
    for (key, place), evidence in list(case.forced.evidence.items()):
        shape = evidence.shape[1:]
        pattern = case.forced.arrangements[key, place][0]
        if not evidence.wrong or key[1] != "in" or len(shape) < 2 or "(" in pattern:
            continue
        left, right = (side.split() for side in pattern.split("->"))
        order = [left.index(atom) - 1 for atom in right if atom != left[0]]
        if order == sorted(order):
            continue
        owners: dict[str, list[int]] = {}
        for n, row in _found(case):
            have = case.torch.leaves[row.torch].shape
            whole = "(" not in row.pattern and not (row.torch_part or row.jax_part)
            if whole and len(have) <= 2 and have[:1] == (math.prod(shape),):
                owners.setdefault(row.torch.rpartition(".")[0], []).append(n)
        for chosen in [*owners.values(), [n for group in owners.values() for n in group]]:
            before = case.map.rows, case.forced
            case.map.rows = list(case.map.rows)
            for n in chosen:
                row = case.map.rows[n]
                moved, sizes = behind_flatten(row.pattern, 0, shape, order)
                how = f"{row.how}; before an unflatten"
                case.map.rows[n] = replace(row, pattern=moved, sizes=sizes, how=how)
            case.forced = case.force()
            if len(case.forced.wrong) < len(before[1].wrong):
                return _unflattened(case)
            case.map.rows, case.forced = before
    return None


def _found(case: Case) -> list[tuple[int, MapRow]]:
    """Return the rows that may be changed, with their numbers: not the user's."""
    return list(enumerate(case.map.rows))[case.map.given :]


def _options(case: Case, layer: Layer) -> Any:
    """Yield the rows with one layer's patterns changed, or its leaves exchanged with another's."""
    rows = case.map.rows
    mine = [n for n, row in _found(case) if row.torch.startswith(plain(layer.torch) + ".")]
    choices = [
        [(rows[n].pattern, dict(rows[n].sizes)), *case.map.choices.get(n, [])[:5]] for n in mine
    ]
    for chosen in itertools.islice(itertools.product(*choices), 1, 24):
        changed = list(rows)
        for n, (pattern, sizes) in zip(mine, chosen, strict=True):
            changed[n] = replace(rows[n], pattern=pattern, sizes=sizes, how="probing")
        yield changed
    parts = [n for n in mine if rows[n].torch_part or rows[n].jax_part]
    groups: dict[tuple[str, Any], list[int]] = {}
    for n in parts:
        groups.setdefault(
            (rows[n].torch if rows[n].torch_part else "", rows[n].jax if rows[n].jax_part else ""),
            [],
        ).append(n)
    sizes_ = {len(group) for group in groups.values()}
    if len(sizes_) == 1 and sizes_ <= {2, 3, 4}:
        for order in itertools.islice(itertools.permutations(range(sizes_.pop())), 1, None):
            changed = list(rows)
            for group in groups.values():
                for place, n in enumerate(group):
                    other = rows[group[order[place]]]
                    changed[n] = (
                        replace(rows[n], torch_part=other.torch_part, how="probing")
                        if rows[n].torch_part
                        else replace(rows[n], jax_part=other.jax_part, how="probing")
                    )
            yield changed
    for other in case.layers:
        if other is layer or not _far(case, other):
            continue
        exchanged = _exchanged(case, layer, other)
        if exchanged:
            yield exchanged


def _exchanged(case: Case, one: Layer, other: Layer) -> list[MapRow] | None:
    """Return the rows with the leaves of two layers exchanged; None if their shapes differ."""
    rows = list(case.map.rows)
    mine, theirs = (
        [n for n, row in _found(case) if row.torch.startswith(plain(layer.torch) + ".")]
        for layer in (one, other)
    )
    shapes = [[case.torch.leaves[rows[n].torch].shape for n in own] for own in (mine, theirs)]
    if shapes[0] != shapes[1] or not mine:
        return None
    for a, b in zip(mine, theirs, strict=True):
        first, second = rows[a], rows[b]
        rows[a] = replace(first, jax=second.jax, how="probing")
        rows[b] = replace(second, jax=first.jax, how="probing")
    return rows


def _rewired(case: Case) -> None:
    """Exchange layers of one shape, whose names say nothing, where what follows them is far off.

    As those of two branches of which one side calls the one first, and the other the other.
    """
    tries = 40
    for key in [key for (key, _), e in case.forced.evidence.items() if e.wrong and e.size > 1e-3]:
        for one in _before(case, key):
            for other in case.layers:
                if other is one or tries == 0 or not _nameless(one, other):
                    continue
                tries -= 1
                if _with_branches(case, one, other):
                    return _rewired(case)
    return None


def _before(case: Case, key: Key) -> list[Layer]:
    """Return the layers whose outputs a layer's input is made of."""
    names = case.recorded.slice(key)[1] if key[1] == "in" else ()
    return [layer for layer in case.layers if f"{layer.torch}:out" in names]


def _nameless(one: Layer, other: Layer) -> bool:
    """Whether the names of two layers fit the other's twin no worse than their own."""
    own = unlike(one.torch, one.jax) + unlike(other.torch, other.jax)
    return unlike(one.torch, other.jax) + unlike(other.torch, one.jax) <= own + 0.1


def _with_branches(case: Case, one: Layer, other: Layer) -> bool:
    """Exchange two layers, and those before them as long as that is needed; whether it helps."""
    before = case.map.rows, case.layers, case.forced
    todo = [(one, other)]
    for _ in range(12):
        if not todo:
            break
        one, other = todo.pop()
        rows = _exchanged(case, one, other)
        if rows is None:
            continue
        case.map.rows = rows
        case.pair_layers()
        if {layer.torch for layer in case.layers} != {layer.torch for layer in before[1]}:
            break
        case.forced = case.force()
        if len(case.forced.wrong) < len(before[2].wrong):
            return True
        earlier = [_before(case, (layer.torch, "in", 0)) for layer in (one, other)]
        if [len(found) for found in earlier] == [1, 1] and earlier[0] != earlier[1]:
            todo.append((earlier[0][0], earlier[1][0]))
    case.map.rows, case.layers, case.forced = before
    return False


def _without_layers(case: Case) -> None:
    """Settle the patterns of a function's parameters by what differs least with them.

    Those of one name but for its numbers together, then one by one, and then all together, since
    nothing may lie between.
    """
    rows = case.map.rows
    choices = {n: [(rows[n].pattern, dict(rows[n].sizes)), *more[:3]]
               for n, more in case.map.choices.items() if more}  # fmt: skip

    def helps(chosen: dict[int, tuple[str, dict[str, int]]]) -> bool:
        before = case.map.rows
        case.map.rows = list(before)
        for n, (pattern, sizes) in chosen.items():
            case.map.rows[n] = replace(before[n], pattern=pattern, sizes=sizes, how="probing")
        tried = case.force()
        if len(tried.wrong) < len(case.forced.wrong):
            case.forced = tried
            return True
        case.map.rows = before
        return False

    alike: dict[Any, list[int]] = {}
    for n, options in choices.items():
        alike.setdefault((re.sub(r"\d+", "", rows[n].torch), str(options)), []).append(n)
    for group in [*alike.values(), *([n] for n in list(choices)[:20])]:
        options = choices.get(group[0], [])[1:]
        if case.forced.wrong and any(helps(dict.fromkeys(group, option)) for option in options):
            choices = {n: options for n, options in choices.items() if n not in group}
    for chosen in itertools.islice(itertools.product(*choices.values()), 1, 64):
        if not case.forced.wrong or helps(dict(zip(choices, chosen, strict=True))):
            return
