"""Where a difference lies, and how differences are shown: grouped, accepted, by layer."""

import re
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any

from parity.pairs.case import Case
from parity.pairs.causes.candidates import Candidate
from parity.pairs.forward.lines import QUIET
from parity.pairs.mapping.layers import plain
from parity.pairs.pair import Accept
from parity.pairs.proof import Difference, Kind, LayerEvidence, Place
from parity.pairs.torch_side.operations import Variant
from parity.pairs.torch_side.recorded import Key


def place_of(case: Case, key: Key) -> tuple[Kind, Place, Place]:
    """Return kind and names of a place: a layer, or the two that the code lies between."""
    names = {layer.torch: layer.jax for layer in case.layers}
    layer, way, _ = key
    if way == "out":
        return "inside", plain(layer), names[layer]
    _, sources_ = case.recorded.slice(key)
    before = {name[: -len(":out")] for name in sources_ if name.endswith(":out")}
    order = [known for known in case.layers if plain(known.torch) in before]
    first = order[-1].torch if order else "input"
    theirs = names.get(first, first), names.get(layer, layer)
    return "between", (plain(first), plain(layer)), theirs


def refined(
    case: Case, key: Key, changed: dict[int, Variant], cause: Candidate | None
) -> tuple[Kind, Place, Place]:
    """Return the place, as near as PyTorch's modules tell it where JAX has no such layers."""
    kind, ours, theirs = place_of(case, key)
    numbers, _ = case.recorded.slice(key)
    if kind != "between":
        return kind, ours, theirs
    owner = {n: _owner(case, case.recorded.operations[n].module) for n in numbers}
    cores = {
        owner[n]
        for n in (changed if cause else numbers)
        if n in owner and (cause or case.recorded.operations[n].name not in QUIET)
    }
    if len(cores) == 1 and (core := cores.pop()):
        twins = [row.jax for row in case.map.rows if row.torch.startswith(core + ".")]
        return "inside", core, _common(twins) or theirs
    if cause and changed:
        first, last = min(changed), max(changed)
        before = [owner[n] for n in numbers if n < first and owner[n]]
        behind = [owner[n] for n in numbers if n > last and owner[n]]
        ours = before[-1] if before else ours[0], behind[0] if behind else ours[1]
    return kind, ours, theirs


def _owner(case: Case, module: str) -> str:
    """Return the module, or the one around it, that owns leaves; none for the whole model."""
    owners = {name.rpartition(".")[0] for name in case.torch.leaves}
    while module and module not in owners:
        module = module.rpartition(".")[0]
    return module


def _common(names: Sequence[str]) -> str:
    """Return the path that names have in common."""
    parts = [name.split(".")[:-1] for name in names]
    shared = [same[0] for same in zip(*parts, strict=False) if len(set(same)) == 1]
    return ".".join(shared)


def accepted(difference: Difference, accept: Sequence[Accept]) -> Difference:
    """Return the difference with the reason why it is meant, if it is."""
    places = [difference.torch] if isinstance(difference.torch, str) else list(difference.torch)
    for one in accept:
        if one.name == difference.cause and any(fnmatch(place, one.at) for place in places):
            return replace(difference, accepted=one.because or "accepted")
    return difference


def grouped(found: Sequence[Difference]) -> list[Difference]:
    """Return differences of one kind as one, with the further places that it is seen at."""
    groups: dict[Any, list[Difference]] = {}
    for one in found:
        pattern = re.sub(r"\d+", "*", str(one.torch))
        groups.setdefault((one.stage, one.kind, pattern, one.cause, one.accepted), []).append(one)
    result = []
    for group in groups.values():
        _, *also = dict.fromkeys(name_of(one.torch) for one in group)
        result.append(replace(group[0], also=also, size=max(one.size for one in group)))
    return result


def name_of(place: Place) -> str:
    """Return the name of a layer, or of the two that code lies between."""
    return place if isinstance(place, str) else " and ".join(place)


def layer_table(case: Case) -> list[LayerEvidence]:
    """Return the evidence at each layer, in PyTorch's order."""
    found = []
    for layer in case.layers:
        by_way = {
            way: [
                e
                for (key, _), e in case.forced.evidence.items()
                if key[0] == layer.torch and key[1] == way
            ]
            for way in ("in", "out")
        }
        sizes = {way: max((e.size for e in all_), default=None) for way, all_ in by_way.items()}
        every = [*by_way["in"], *by_way["out"]]
        shape = by_way["out"][0].shape if by_way["out"] else ()
        rounding = max((e.rounding / e.scale for e in every), default=0.0)
        found.append(
            LayerEvidence(
                torch=layer.torch,
                jax=layer.jax,
                shape=shape,
                before=sizes["in"],
                inside=sizes["out"],
                rounding=rounding,
            )
        )
    return found
