"""How far rounding may move a result: what both frameworks' stochastic arithmetic shares.

Parker's Monte Carlo arithmetic: the program runs in float64, and each operation that rounds
makes a random error of the size that an implementation of less precision could make. The spread
σ of a result over a few such runs is what rounding explains; an implementation's error over σ is
the evidence. Errors are relative to an operation's own terms, so that cancellation shows.
"""

import math
from collections.abc import Sequence

import numpy as np

UNITS = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Unit roundoff: the largest relative error of a correctly rounded result."""

ULPS = {
    **dict.fromkeys(("div", "exp", "log", "log2", "log10", "rsqrt", "reciprocal", "sin", "cos"), 1),
    **dict.fromkeys(("cbrt", "atan", "pow", "tan", "sigmoid", "logistic", "log1p", "atan2"), 2),
    "one_minus_square": 2,
    **dict.fromkeys(("expm1", "asin", "acos", "asinh", "acosh", "atanh", "tanh", "erf"), 3),
    **dict.fromkeys(("bessel_i0e", "bessel_i1e", "i0", "i0e", "i1", "i1e"), 3),
    **dict.fromkeys(("sinh", "cosh"), 4),
    **dict.fromkeys(("erf_inv", "erfinv"), 8),
    **dict.fromkeys(("lgamma", "digamma", "polygamma", "igamma", "igammac", "zeta"), 8),
}
"""Relative error of a function in units: above the rms, and a third of the worst or more, of what
XLA and PyTorch make on a CPU (`python -m benchmarks.rounding functions`)."""

CORRECT = frozenset({"add", "add_any", "sub", "rsub", "mul", "sqrt", "square", "integer_pow"})
"""Operations that IEEE 754 rounds correctly: exact where the result can be represented."""

FACTORS = frozenset(
    {"eig", "eigh", "geqrf", "hessenberg", "householder_product", "qr", "schur", "svd"}
)
FACTORS |= {"linalg_qr", "_linalg_eigh", "_linalg_svd", "linalg_matrix_exp", "tridiagonal"}
"""Factors of matrices, whose elements' error is by the matrix's norm, not by their own size (Higham
2002, "Accuracy and Stability of Numerical Algorithms", 19.3)."""

ABSOLUTE = {"lgamma": 8.0, "digamma": 4.0}
"""Error in units that remains at a root of the function."""

SAMPLES = 8
FLOOR = 0.5
LAMBDA = 10.0
"""Right code lies within LAMBDA·σ, where σ is `pooled` from SAMPLES perturbed runs.

Of 1,200 right float32 runs (`python -m benchmarks.rounding`: 20 programs, 20 seeds, JAX op by op
and jit, PyTorch) the largest error is 1.7 σ in the median, 3.8 in 99 %, 5.0 in 99.9 %, 5.2 at most.
The rms error of a tensor is ρ·σ with ρ mostly 0.1 to 0.7, and 1 at worst (jnp.cumsum). If errors
are normal, an element passes LAMBDA by chance with 2e-14 for ρ = 0.7 and 1e-8 for ρ = 1 where the
floor holds. Where its σ is far above the tensor's rms σ no floor helps: 6e-7 and 9e-6 (with
4 samples 1e-4 and 6e-4).
TF32 products, one bfloat16 product and a float16 weight in one layer make 135 σ or more.
"""


def inexact(values: np.ndarray, unit: float) -> np.ndarray:
    """Return which float64 values have more bits than a float of precision `unit` holds."""
    extra = 53 - round(-math.log2(unit))
    return (np.asarray(values, order="C").view(np.int64) & ((1 << extra) - 1)) != 0


def relative_spread(
    name: str, values: np.ndarray, arguments: Sequence[np.ndarray], unit: float
) -> np.ndarray:
    """Return σ of an elementwise operation's results.

    exp2(x) and erfc(x) are computed as exp of ln2·x and of −x²: rounding that argument costs
    |ln2·x| and x² units. 2^n, n/2^m and what IEEE 754 rounds correctly is exact where a float of
    that precision can hold the result. Elements of a factor of n columns have √n units of its
    largest.
    """
    size = np.abs(values)
    if name in ("exp2", "erfc"):
        power = 1 if name == "exp2" else 2
        return unit * size * np.maximum(1.0, np.abs(arguments[0]) ** power)
    if name in FACTORS and values.ndim:
        largest = size.max(axis=(-1, -2) if values.ndim > 1 else -1, keepdims=True, initial=0.0)
        return np.broadcast_to(unit * math.sqrt(values.shape[-1]) * largest, values.shape)
    spread = unit * (ULPS.get(name, 1) * size + ABSOLUTE.get(name, 0.0))
    if values.dtype == np.float64 and unit > UNITS["float64"]:
        if name in CORRECT:
            spread *= inexact(values, unit)
        elif name == "div" and len(arguments) > 1:
            two = np.frexp(np.abs(np.asarray(arguments[1], np.float64)))[0] == 0.5
            spread *= ~two | inexact(values, unit)
    return spread


def product_spread(
    squares: np.ndarray, values: np.ndarray, count: float, unit: float
) -> np.ndarray:
    """Return σ of sums of `count` products t, each added to one accumulator: `squares` is Σt².

    The k-th partial sum has about √k·rms(t) for terms of mixed signs and k·mean(t) for terms of
    one sign, and each is rounded: unit²·(count·Σt²/2 + count·(Σt)²/3). A single one is exact to
    its own rounding. Both libraries' matrix products follow this to 20 % (their roundings are
    uniform: 0.41 of a unit).
    """
    return unit * np.sqrt(count * (squares / 2 + np.square(values) / 3))


def sum_spread(squares: np.ndarray, values: np.ndarray, count: float, unit: float) -> np.ndarray:
    """Return σ of sums of `count` terms t, `squares` is Σt².

    Both libraries add in blocks, then block sums in pairs: as `product_spread` within a block of
    64, and a rounding of the result: unit²·(min(count, 64)·Σt²/2 + (Σt)²).
    """
    if count <= 1:
        return np.zeros_like(values)
    return unit * np.sqrt(min(count, 64) * squares / 2 + np.square(values))


def shaken(values: np.ndarray, spread: np.ndarray | float, rng: np.random.Generator) -> np.ndarray:
    """Return values with uniform random errors of standard deviation `spread`.

    Uniform, not ±spread: two errors of one size would cancel in every second run, and leave no
    spread at all in one of 2^SAMPLES elements.
    """
    errors = rng.random(values.shape, dtype=np.float32) - np.float32(0.5)
    with np.errstate(invalid="ignore", over="ignore"):
        moved = values + math.sqrt(12) * spread * errors
    return np.where(np.isfinite(values), moved, values).astype(values.dtype, copy=False)


def pooled(truth: np.ndarray, runs: Sequence[np.ndarray], *, floor: float = FLOOR) -> np.ndarray:
    """Return σ of each element of a tensor from its few perturbed runs.

    σ is the rms of run − truth, but at least FLOOR of the tensor's rms σ, since of many elements
    some come out far too small by chance; and never below float32's smallest normal number.
    """
    variance = np.zeros(np.shape(truth))
    for run in runs:
        variance += np.square(np.asarray(run, np.float64) - truth) / len(runs)
    variance[~np.isfinite(variance)] = 0.0
    least = floor**2 * variance.mean() if variance.size else 0.0
    return np.sqrt(np.maximum(variance, max(least, 2.0**-252)))


def evidence(truth: np.ndarray, found: np.ndarray, sigma: np.ndarray) -> float:
    """Return the largest |found − truth|/σ of a tensor; infinite where only one is finite."""
    truth, found = np.asarray(truth, np.float64), np.asarray(found, np.float64)
    same = (truth == found) | (np.isnan(truth) & np.isnan(found))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(found - truth))
    return float(np.max(np.nan_to_num(error, nan=np.inf) / sigma, initial=0.0))
