"""The map settled, and the forward pass: every difference located, and its cause named."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import einops
import numpy as np
import torch

from parity.pairs.case import Case, Progress
from parity.pairs.causes.activations import ADDED, clipped, written_out
from parity.pairs.causes.candidates import Candidate
from parity.pairs.forward.evidence import Evidence
from parity.pairs.forward.lines import QUIET, told
from parity.pairs.forward.places import refined
from parity.pairs.forward.ways import literals_of, primitives_of, replaced_by, ways
from parity.pairs.jax_side.sources import user_line
from parity.pairs.mapping.arrangement import distance
from parity.pairs.mapping.patterns import rearranged
from parity.pairs.proof import Difference
from parity.pairs.torch_side.operations import Region, Variant
from parity.pairs.torch_side.recorded import Key, Recorded

REPLAYS = 60_000
"""Operations that are made again in one region in search of a cause, at most: about 15 seconds.

Behind one region without a cause it is half of them, behind two a third, and so on.
"""


MISFITS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What PyTorch and the catalogue raise where a variant does not fit an operation."""


@dataclass
class Found:
    """A difference of the forward pass with what computes it JAX's way."""

    difference: Difference
    corrections: dict[int, Variant]


def differences(case: Case, progress: Progress) -> list[Found]:
    """Locate every difference of the forward pass, and name its cause if the catalogue has it.

    What one cause explains in several places is one difference, at the first of them.
    """
    keys = [key for key in case.recorded.arrays if case.forced.at(key)]
    truth = case.recorded
    found: list[Found] = []
    corrections: dict[int, Variant] = {}
    for number, key in enumerate(keys):
        progress("forward", number, len(keys))
        evidence = [e for e in case.forced.at(key) if _off(e, truth) > e.rounding]
        if not evidence:
            continue
        worst = max(evidence, key=lambda e: e.size)
        tables = _tables(case, key, evidence)
        if tables:
            case.notes.append(tables)
            case.tables = True
            corrections = {**corrections, **_ended(case, key, worst)}
            truth = case.record(variants=corrections, forced=case.recorded.arrays)
            continue
        fails = sum(one.difference.cause is None for one in found)
        causes, changed = _cause(case, key, worst, corrections, fails)
        corrections = {**corrections, **changed}
        truth = case.record(variants=corrections, forced=case.recorded.arrays)
        for cause in causes or [None]:
            found.append(Found(_difference(case, key, worst, cause, changed), changed))
    return found


def _off(evidence: Evidence, truth: Recorded) -> float:
    """Return the error of JAX's value against PyTorch's, computed with what was found so far."""
    if evidence.own is None:
        return evidence.error
    array = truth.arrays[evidence.key][evidence.place]
    sizes = _sizes_of(evidence, array)
    if sizes is None:
        return evidence.error
    return distance(evidence.own, sizes)[0]


def _explained(case: Case, evidence: Evidence, made: dict[tuple[int, int], Any]) -> float:
    """Return how far what a region makes now is from JAX's, over rounding."""
    at = (*evidence.key, evidence.place)
    number = case.recorded.made_by[at]
    value = made.get((number, case.recorded.places[at])) if isinstance(number, int) else None
    if value is None:
        return math.inf
    array = _sizes_of(
        evidence, value.double().numpy() if value.is_floating_point() else value.numpy()
    )
    return _over_rounding(evidence, array)


def _over_rounding(evidence: Evidence, array: np.ndarray | None) -> float:
    """Return how far a value in JAX's layout is from JAX's own, over rounding."""
    if evidence.own is None or array is None or array.shape != evidence.own.shape:
        return math.inf
    error = distance(evidence.own, array)[0]
    if not evidence.rounding:  # integers have none
        return math.inf if error else 0.0
    return float(error) / float(evidence.rounding)


def _sizes_of(evidence: Evidence, array: np.ndarray) -> np.ndarray | None:
    pattern, sizes = evidence.arranged
    try:
        return rearranged(array, pattern, sizes)
    except einops.EinopsError:  # a variant may change a shape
        return None


def _cause(
    case: Case, key: Key, evidence: Evidence, corrections: dict[int, Variant], fails: int
) -> tuple[list[Candidate], dict[int, Variant]]:
    """Return the candidates that make PyTorch compute JAX's numbers, and what they replace.

    One is enough, as a rule; two independent mistakes in one region take two. Without any, the
    operation that ends the region is replaced by JAX's numbers. `fails` is in how many regions
    nothing was found before.
    """
    numbers, _ = case.recorded.slice(key)
    at = [e for e in case.forced.at(key) if e.wrong]
    region = Region(numbers)
    truth = case.record(variants=corrections, forced=case.recorded.arrays, keep=region)

    def off(variants: dict[int, Variant]) -> float:
        with torch.no_grad():
            try:
                made = region.run({**corrections, **variants})
            except MISFITS:
                return math.inf
        return max(_explained(case, e, made) for e in at)

    tried = []
    most = max(60, REPLAYS // (max(len(numbers), 1) * (1 + fails)))
    names = primitives_of(evidence)
    every = (
        (candidate, variants)
        for candidate, variants in ways(case, key, numbers, literals_of(evidence))
        if candidate.fits(names)
    )
    for candidate, variants in itertools.islice(every, most):
        left = off(variants)
        if left <= 1:
            return [candidate], variants
        tried.append((left, candidate, variants))
    before = off({})
    tried.sort(key=lambda one: one[0])
    for left, candidate, variants in tried[:3]:
        for _, other, more in tried[: min(150, most // 4)] if left < 0.5 * before else ():
            if other.cause == candidate.cause or set(variants) & set(more):
                continue
            if off({**variants, **more}) <= 1:
                return [candidate, other], {**variants, **more}
    whole = next(_of_values(case, key, at, truth), None)
    return [whole] if whole else [], _ended(case, key, evidence)


def _of_values(
    case: Case, key: Key, at: Sequence[Evidence], truth: Recorded
) -> Iterator[Candidate]:
    """Yield the functions of PyTorch's values that give JAX's: of a region's end, or its begin."""
    ends = [truth.arrays[e.key][e.place] for e in at]
    names, limits = primitives_of(at[0]), literals_of(at[0], "max", "min", "clamp")
    for candidate in itertools.chain(ADDED, clipped(limits)):
        if candidate.fits(names) and all(
            _made_of(e, x, candidate) <= 1 for e, x in zip(at, ends, strict=True)
        ):
            yield candidate
    layers = [name.removesuffix(":out") for name in case.recorded.slice(key)[1] if ":out" in name]
    for layer, candidate in ((x, c) for x in layers for c in written_out(x)):
        begins = truth.arrays.get((layer, "out", key[2]), [])[:1]
        if begins and all(_made_of(e, begins[0], candidate) <= 1 for e in at):
            yield candidate


def _made_of(evidence: Evidence, array: np.ndarray, candidate: Candidate) -> float:
    """Return how far what a function makes of a value of PyTorch's is from JAX's, over rounding."""
    value = torch.from_numpy(array)
    if not value.is_floating_point() or not value.ndim:
        return math.inf
    made = candidate.variant(None, (value,), {}).numpy()
    return _over_rounding(evidence, _sizes_of(evidence, made))


def _ended(case: Case, key: Key, evidence: Evidence) -> dict[int, Variant]:
    """Return what lets the operation that ends a region give JAX's numbers."""
    last = case.recorded.made_by.get((*key, evidence.place))
    return {last: replaced_by(evidence)} if isinstance(last, int) else {}


def _tables(case: Case, key: Key, wrong: list[Evidence]) -> str:
    """Return what to say if an error is that of a table which PyTorch keeps in float32."""
    if not case.single or any(e.size > 2.0**-16 for e in wrong):
        return ""
    with case.shaken():
        shaken = case.record(forced=case.recorded.arrays)
    for evidence in wrong:
        place = evidence.place
        spread, _ = distance(shaken.arrays[key][place], case.recorded.arrays[key][place])
        if evidence.error > 8 * spread:
            return ""
    size, names = max(e.size for e in wrong), ", ".join(case.single)
    return f"PyTorch keeps {names} in float32, which explains {size:.0e} at {key[0]}"


def _difference(
    case: Case, key: Key, evidence: Evidence, cause: Candidate | None, changed: dict[int, Variant]
) -> Difference:
    kind, ours, theirs = refined(case, key, changed, cause)
    numbers, _ = case.recorded.slice(key)
    made = [case.recorded.operations[n] for n in numbers]
    shown = [o for o in made if o.name not in QUIET]
    culprits = {o.source for o in made if o.number in changed} if cause else ()
    return Difference(
        stage="forward",
        kind=kind,
        torch=ours,
        jax=theirs,
        size=evidence.size,
        rounding=evidence.rounding / evidence.scale,
        cause=cause.cause if cause else None,
        explanation=cause.explanation if cause else "",
        fix=cause.fix if cause else None,
        torch_source=told(((o.name, o.source) for o in shown), culprits),
        jax_source=told(
            (one.equation.primitive.name, user_line(one.equation, one.callers))
            for one in evidence.equations
        ),
    )
