"""What to try in a region of PyTorch's side so that JAX's numbers come out."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from parity.pairs.case import Case
from parity.pairs.causes.candidates import Candidate
from parity.pairs.causes.catalogue import candidates, together
from parity.pairs.forward.evidence import Evidence
from parity.pairs.mapping.layers import plain
from parity.pairs.mapping.patterns import inverse, rearranged
from parity.pairs.torch_side.operations import Operation, Variant
from parity.pairs.torch_side.recorded import Key

LOOP = 8
"""Operations that are alike in a region, of which more are taken for the steps of a loop."""


def ways(
    case: Case, key: Key, numbers: Sequence[int], literals: Sequence[float]
) -> Iterator[tuple[Candidate, dict[int, Variant]]]:
    """Yield what to try in a region: an operation otherwise, or all that are like it."""
    made = [case.recorded.operations[number] for number in numbers]
    names = {operation.name for operation in made}
    yield from together(made, literals)
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for operation in made:
        kind = operation.name, operation.scalars, operation.source
        kinds.setdefault(kind, []).append(operation.number)

    def others(operation: Operation) -> Iterator[Candidate]:
        yield from candidates(operation, literals)
        if operation.name in ("add", "add_"):
            yield from itertools.islice(_operands(case, key, operation.shape), 2)

    def named(candidate: Candidate) -> Candidate:
        rotary = candidate.cause == "constant" and {"sin", "cos"} <= names
        return replace(candidate, cause="rope-base") if rotary else candidate

    steps: list[Operation] = []
    """Those of loops: one alone comes last."""
    for operation in reversed(made):
        alike = kinds[operation.name, operation.scalars, operation.source]
        loop = len(alike) > LOOP
        if loop:
            steps.append(operation)
        if loop and operation.number != alike[-1]:
            continue
        for candidate in map(named, others(operation)):
            if not loop:
                yield candidate, {operation.number: candidate.variant}
            if len(alike) > 1 and operation.number == alike[-1]:
                for step, start in ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)):
                    yield candidate, dict.fromkeys(alike[start::step], candidate.variant)
    for operation in steps:
        for candidate in map(named, others(operation)):
            yield candidate, {operation.number: candidate.variant}
    for operation in reversed(made):
        alike = kinds[operation.name, operation.scalars, operation.source]
        if operation.name in ("add", "add_") and len(alike) <= LOOP:
            for candidate in itertools.islice(_operands(case, key, operation.shape), 2, None):
                yield candidate, {operation.number: candidate.variant}
                if len(alike) > 1 and operation.number == alike[-1]:
                    yield candidate, dict.fromkeys(alike, candidate.variant)


def _operands(case: Case, key: Key, shape: tuple[int, ...]) -> Iterator[Candidate]:
    """Yield sums with one term left out, or with another value of the model in its place."""

    def of(place: int, value: Any) -> Variant:
        def compute(func: Any, args: Any, kwargs: Any) -> Any:
            if not isinstance(args[1], torch.Tensor):
                raise TypeError
            new = (
                torch.from_numpy(value.copy())
                if value is not None
                else torch.zeros_like(args[place])
            )
            return func(*args[:place], new, *args[place + 1 :], **kwargs)

        return compute

    for place in (0, 1):
        yield Candidate(
            "residual",
            f"JAX adds only one of two terms (the {('second', 'first')[place]})",
            "add both in JAX",
            of(place, None),
        )
    earlier = list(itertools.takewhile(lambda other: other != key, case.recorded.arrays))
    for other in earlier[::-1][:12]:
        for array in case.recorded.arrays[other]:
            if array.shape == shape and array.dtype.kind == "f":
                what = f"what goes {'into' if other[1] == 'in' else 'out of'} {plain(other[0])}"
                for place in (0, 1):
                    yield Candidate(
                        "residual",
                        f"JAX adds {what} instead of another term",
                        "add PyTorch's terms in JAX",
                        of(place, array),
                    )


def replaced_by(evidence: Evidence) -> Variant:
    """Return the variant that gives JAX's numbers in place of PyTorch's."""
    pattern, sizes = evidence.arranged
    value = rearranged(np.asarray(evidence.own), inverse(pattern), sizes)

    def compute(func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        first = out[0] if isinstance(out, tuple | list) else out
        new = torch.from_numpy(value.copy()).reshape(first.shape).to(first.dtype)
        return (new, *out[1:]) if isinstance(out, tuple | list) else new

    return compute


def literals_of(evidence: Evidence, *of: str) -> list[float]:
    """Return the numbers in JAX's region, those that PyTorch's constants may be compared with.

    `of` are the primitives that count; all if none is given.
    """
    found: dict[float, None] = {}
    for equation, given in ((one.equation, one.numbers) for one in evidence.equations):
        if of and equation.primitive.name not in of:
            continue
        numbers = [x for x in given if x is not None]
        numbers += [v for v in equation.params.values() if isinstance(v, float)]
        found.update((float(f"{x:.7g}"), None) for x in numbers)
        found.update((x, None) for x in numbers)
    return list(found)


def primitives_of(evidence: Evidence) -> set[str]:
    """Return the names of JAX's operations in the region, and `dilated` for a kernel that is."""
    found = {one.equation.primitive.name for one in evidence.equations}
    dilations = (one.equation.params.get("rhs_dilation") or () for one in evidence.equations)
    return found | {"dilated" for sizes in dilations if any(n > 1 for n in sizes)}
