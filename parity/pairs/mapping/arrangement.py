"""The pattern that brings PyTorch's array to the layout of JAX's."""

import itertools
import math

import numpy as np

from parity.pairs.mapping.patterns import patterns, rearranged
from parity.pairs.torch_side.recorded import Recorded


def distance(own: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return the largest error and the largest value; nan and inf agree with themselves."""
    if own.size == 0:
        return 0.0, 1.0
    if own.dtype.kind != "f" or truth.dtype.kind != "f":
        own, truth = own.astype(np.float64), truth.astype(np.float64)
    finite = np.isfinite(truth)
    with np.errstate(invalid="ignore"):
        off = np.abs(own - truth)
    alike = (own == truth) | (np.isnan(own) & np.isnan(truth))
    off = np.where(alike, 0, np.where(np.isnan(off), np.inf, off))
    scale = float(np.abs(truth[finite]).max(initial=0))
    return float(off.max()), scale or 1.0


def arrangement(
    truth: np.ndarray, own: np.ndarray, recorded: Recorded, before: str, *, flat: bool
) -> tuple[str, dict[str, int]] | None:
    """Return the pattern that brings PyTorch's array to JAX's layout; `before` is the last one.

    Of those that fit the shapes, it is the one that fits the values; if none does, the usual one.
    """
    rank = truth.ndim
    last = (0, *range(2, rank), 1) if rank > 2 else ()
    first = [last] if last and truth.shape != own.shape else []
    options = []
    for option in itertools.islice(patterns(truth.shape, own.shape, first), 60):
        error, scale = distance(own, rearranged(truth, *option))
        if error <= 1e-9 * scale:
            return option
        options.append((error, option))
    if flat and truth.shape == own.shape and rank >= 2 and truth.dtype.kind == "f":
        found = _behind_flatten(truth, own, recorded)
        if found:
            return found
    if not options:
        return None
    if last and truth.shape != own.shape:
        usual = options[0]
    else:
        usual = next((o for o in options if truth.shape == own.shape), options[0])
    usual = next((o for o in options if o[1][0] == before), usual)
    best = max(options, key=lambda option: _alike(own, rearranged(truth, *option[1])))
    gain = _alike(own, rearranged(truth, *best[1])) - _alike(own, rearranged(truth, *usual[1]))
    return best[1] if gain > 0.3 else usual[1]


def _alike(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two arrays: near one in the right order, near none in another."""
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.vdot(a - a.mean(), b - b.mean()) / (a.std() * b.std() * max(a.size, 1))
    return float(found) if np.isfinite(found) else 0.0


def _behind_flatten(
    truth: np.ndarray, own: np.ndarray, recorded: Recorded
) -> tuple[str, dict[str, int]] | None:
    """Return the pattern where the last axis was flattened from others in another order."""
    length = truth.shape[-1]
    shapes = {
        array.shape[1:]
        for group in recorded.arrays.values()
        for array in group
        if array.ndim >= 3 and math.prod(array.shape[1:]) == length
    }
    shapes |= {(c, *s) for c, s in _pooled(recorded, length)}
    front = " ".join("abcdefgh"[: truth.ndim - 1])
    likely: list[tuple[float, tuple[str, dict[str, int]]]] = []
    for shape in shapes:
        atoms = "uvwxyz"[: len(shape)]
        sizes = dict(zip(atoms[:-1], shape, strict=False))
        for order in itertools.permutations(range(len(shape))):
            to = " ".join(atoms[i] for i in order)
            option = (f"{front} ({' '.join(atoms)}) -> {front} ({to})", sizes)
            moved = rearranged(truth, *option)
            error, scale = distance(own, moved)
            if error <= 1e-9 * scale:
                return option
            likely.append((_alike(own, moved), option))
    best = max(likely, key=lambda one: one[0], default=(0.0, None))
    return best[1] if best[0] > max(0.3 + _alike(own, truth), 0.5) else None


def _pooled(recorded: Recorded, length: int) -> list[tuple[int, tuple[int, ...]]]:
    """Return shapes of operations' results that a flatten of this length may have had."""
    found = []
    for operation in recorded.operations:
        shape = operation.shape
        if len(shape) >= 3 and math.prod(shape[1:]) == length:
            found.append((shape[1], tuple(shape[2:])))
    return found
