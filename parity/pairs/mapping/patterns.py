"""Rearrangements of arrays, written as einops patterns: what may lie between two shapes."""

import itertools
import math
from collections.abc import Iterator, Sequence

import einops
import numpy as np

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def rearranged(array: np.ndarray, pattern: str, sizes: dict[str, int]) -> np.ndarray:
    """Return an array rearranged by a pattern; the same values in another order."""
    return np.array(einops.rearrange(np.asarray(array), pattern, **sizes), order="C")


def inverse(pattern: str) -> str:
    """Return the pattern that goes back."""
    left, right = pattern.split("->")
    return f"{right.strip()} -> {left.strip()}"


def patterns(
    have: Sequence[int], want: Sequence[int], first: Sequence[Sequence[int]] = ()
) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield each pattern from one shape to another: axes permuted, and then split or merged.

    Those with the orders of axes `first` come first, then the order as it is, then all others.
    """
    if math.prod(have) != math.prod(want) or len(have) > 6:
        return
    orders = [*map(tuple, first), tuple(range(len(have)))]
    if len(have) <= 5:
        orders += itertools.permutations(range(len(have)))
    seen = set()
    for order in orders:
        if sorted(order) != list(range(len(have))):
            continue
        groups = _grouped([have[axis] for axis in order], want)
        if groups is None:
            continue
        found = _written(have, order, want, groups)
        if found[0] not in seen:
            seen.add(found[0])
            yield found


def _grouped(have: Sequence[int], want: Sequence[int]) -> list[tuple[int, int]] | None:
    """Return how many axes of each side make a group; one of both is a single axis, or nothing."""
    groups, i, k = [], 0, 0
    while i < len(have) or k < len(want):
        a = b = 1
        start = (i, k)
        if i < len(have):
            a, i = have[i], i + 1
        if k < len(want):
            b, k = want[k], k + 1
        if a != b and 1 in (a, b):  # an axis of length one on one side only
            if a == 1 and k > start[1]:
                k = start[1]
            elif b == 1 and i > start[0]:
                i = start[0]
            groups.append((i - start[0], k - start[1]))
            continue
        while a != b:
            if a < b:
                if i == len(have):
                    return None
                a, i = a * have[i], i + 1
            else:
                if k == len(want):
                    return None
                b, k = b * want[k], k + 1
        group = (i - start[0], k - start[1])
        if min(group) > 1:
            return None
        groups.append(group)
    return groups


def _written(
    have: Sequence[int], order: Sequence[int], want: Sequence[int], groups: list[tuple[int, int]]
) -> tuple[str, dict[str, int]]:
    left: dict[int, str] = {}
    right: list[str] = []
    sizes: dict[str, int] = {}
    letters = iter(_LETTERS)
    i = k = 0
    for of_have, of_want in groups:
        axes = order[i : i + of_have]
        if of_want > 1 or (of_have == 1 and of_want == 1):
            atoms = [next(letters) for _ in range(of_want)]
            sizes.update(zip(atoms[:-1], want[k : k + of_want], strict=False))
            left[axes[0]] = atoms[0] if len(atoms) == 1 else f"({' '.join(atoms)})"
            right += atoms
        elif of_want == 1:
            atoms = [next(letters) for _ in axes]
            sizes.update((atom, have[axis]) for atom, axis in zip(atoms[:-1], axes, strict=False))
            left.update(zip(axes, atoms, strict=True))
            right.append(f"({' '.join(atoms)})" if atoms else "1")
        else:
            left.update((axis, "1") for axis in axes)
        i, k = i + of_have, k + of_want
    text = " ".join(left[axis] for axis in range(len(have)))
    return f"{text} -> {' '.join(right)}".strip(), sizes


def behind_flatten(
    pattern: str, axis: int, shape: Sequence[int], order: Sequence[int], letters: str = "xyzuvw"
) -> tuple[str, dict[str, int]]:
    """Return a pattern whose axis `axis` was flattened from `shape` in another order of axes."""
    left, right = pattern.split("->")
    atom = left.split()[axis]
    atoms = letters[: len(shape)]
    permuted = " ".join(atoms[place] for place in order)

    def put(side: str, text: str) -> str:
        return " ".join(f"({text})" if part == atom else part for part in side.split())

    sizes = dict(zip(atoms[:-1], shape, strict=False))
    return f"{put(left, ' '.join(atoms))} -> {put(right, permuted)}", sizes
