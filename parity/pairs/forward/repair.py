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
from parity.pairs.mapping.names import told_apart, unlike
from parity.pairs.mapping.patterns import behind_flatten
from parity.pairs.proof import MapRow
from parity.pairs.torch_side.recorded import OUTPUT, Key


def repair(case: Case, progress: Progress) -> None:
    """Settle by the outcome what names and shapes leave open, layer by layer.

    A layer whose output is far off gets the other patterns of its leaves, and the leaves of other
    layers of its shape; what makes it agree to rounding is kept. Then branches are told apart.
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
    return any(map(_is_far, _outs(case.forced, layer)))


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
    """Return the rows with the leaves of two layers exchanged; None if they are not alike."""
    rows = list(case.map.rows)
    mine, theirs = (
        [n for n, row in _found(case) if row.torch.startswith(plain(layer.torch) + ".")]
        for layer in (one, other)
    )

    def form(n: int) -> tuple[Any, ...]:
        row = rows[n]
        shapes = case.torch.leaves[row.torch].shape, case.jax.leaves[row.jax].shape
        return (*shapes, row.torch_part, row.jax_part)

    if not mine or [*map(form, mine)] != [*map(form, theirs)]:
        return None
    for a, b in zip(mine, theirs, strict=True):
        first, second = rows[a], rows[b]
        pattern, sizes = second.pattern, second.sizes
        rows[a] = replace(first, jax=second.jax, pattern=pattern, sizes=sizes, how="probing")
        pattern, sizes = first.pattern, first.sizes
        rows[b] = replace(second, jax=first.jax, pattern=pattern, sizes=sizes, how="probing")
    return rows


def _rewired(case: Case) -> None:
    """Exchange layers that are alike, also in their names, where what follows them is far off.

    As those of two branches of which one side calls the one first, and the other the other. What
    is returned in another order stays a difference.
    """
    tries = 40
    wrong = {key: None for (key, _), e in case.forced.evidence.items() if _is_far(e)}
    for key in [key for key in wrong if key[0] != OUTPUT]:
        for one in _before(case, key):
            for other in case.layers:
                if other is one or tries == 0 or not _nameless(one, other):
                    continue
                if _exchanged(case, one, other) is None:
                    continue
                tries -= 1
                if _with_branches(case, key, one, other):
                    return _rewired(case)
    return None


def _is_far(evidence: Evidence) -> bool:
    return evidence.wrong and evidence.size > 1e-3


def _before(case: Case, key: Key) -> list[Layer]:
    """Return the layers whose outputs a layer's input is made of."""
    names = case.recorded.slice(key)[1] if key[1] == "in" else ()
    return [layer for layer in case.layers if f"{layer.torch}:out" in names]


def _nameless(one: Layer, other: Layer) -> bool:
    """Whether the names of two layers fit the other's twin no worse than their own."""
    ours, our_other = told_apart(one.torch, other.torch)
    theirs, their_other = told_apart(one.jax, other.jax)
    own = unlike(ours, theirs) + unlike(our_other, their_other)
    return unlike(ours, their_other) + unlike(our_other, theirs) <= own


def _with_branches(case: Case, key: Key, one: Layer, other: Layer) -> bool:
    """Exchange two layers, and those before them as long as that is needed; whether it helps."""
    before = case.map.rows, case.layers, case.forced
    todo, said = [(one, other)], list[str]()
    for _ in range(12):
        rows = _exchanged(case, *todo[-1]) if todo else None
        if rows is None:
            break
        one, other = todo.pop()
        said.append(f"{one.torch} is {other.jax} and {other.torch} is {one.jax}")
        twins = {one: (other.jax, other.product), other: (one.jax, one.product)}
        case.map.rows = rows
        case.layers = [
            replace(layer, jax=twins[layer][0], product=twins[layer][1])
            if layer in twins
            else layer
            for layer in case.layers
        ]
        case.forced = case.force()
        if _helps(before[2], case.forced, key):
            case.notes.append(
                f"taken as such by the outcome, against the order of calls: {'; '.join(said)}"
                " (--map FILE if they are not)"
            )
            return True
        earlier = [_before(case, (layer.torch, "in", 0)) for layer in (one, other)]
        if [len(found) for found in earlier] == [1, 1] and earlier[0] != earlier[1]:
            todo.append((earlier[0][0], earlier[1][0]))
    case.map.rows, case.layers, case.forced = before
    return False


def _helps(before: Forced, after: Forced, key: Key) -> bool:
    """Whether a value is right now, fewer are far off, and none is no longer compared."""
    far = [sum(map(_is_far, forced.evidence.values())) for forced in (before, after)]
    right = not any(map(_is_far, after.at(key)))
    return right and far[1] < far[0] and len(after.evidence) >= len(before.evidence)


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
        for option in choices[group[0]][1:] if case.forced.wrong else ():
            if helps(dict.fromkeys(group, option)):
                break
    for chosen in itertools.islice(itertools.product(*choices.values()), 1, 64):
        if not case.forced.wrong:
            return
        helps(dict(zip(choices, chosen, strict=True)))
