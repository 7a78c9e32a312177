"""What rounding can do to one stage, at one precision: derived, never chosen.

A sum of n products that is rounded at each operation errs by at most λ·√n·u·Σ|aᵢbᵢ| with
probability at least 1 − 2n·exp(−λ²/2) (Higham & Mary 2019, Theorem 3.1), u the unit roundoff. n
counts the products that are not zero, since adding zero is exact, and one more: what a compiler
computes once for the trace and anew for the sum may differ in its last bit. Both n and Σ|aᵢbᵢ| are
the oracle's own formula, on ones and on absolute values. The oracle is rounded too, in float64.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from parity.truth import reference
from parity.truth.reference import B1, B2

CONFIDENCE = 6.0
"""λ. For one rounding the theorem's chance of a false alarm is 2·exp(−18) = 3e-8, and rounding
errors are far from the worst case that it assumes."""

_ELEMENTARY = 2 + np.sqrt(10) + 2
"""Roundings, in units, of exp (2 ulp at most), of a sum of ten, and of log."""

Array = np.ndarray


class Expectation(NamedTuple):
    """What the oracle makes of a subject's own inputs to a stage, and how near it must be."""

    value: np.ndarray
    bound: np.ndarray
    """Largest absolute error of each element; 0 where the stage must be exact to the bit."""

    def grown(self, error: np.ndarray | float) -> "Expectation":
        """Return it with an error that is inherited from earlier stages added to the bound."""
        return self._replace(bound=self.bound + error)


def exact(value: Array) -> Expectation:
    """Expect `value` to the bit."""
    return Expectation(value, np.zeros_like(value))


class Rounding:
    """Bounds at one precision: what a stage should be, and how near.

    An operation errs by the relative unit roundoff; a result below the smallest normal number may
    be flushed to zero, as XLA does on a CPU, which adds that number for each term.
    """

    def __init__(self, dtype: np.dtype) -> None:
        info, oracle = np.finfo(dtype), np.finfo(np.float64)
        self._unit = CONFIDENCE * (info.eps + oracle.eps) / 2
        self._smallest = float(info.tiny)

    def of_sums(self, stage: Callable[..., tuple[Array, ...]], *inputs: Array) -> list[Expectation]:
        """Sums of products err by at most λ·√n·u·Σ|aᵢbᵢ|, and never by more than n·u·Σ|aᵢbᵢ|."""
        values = stage(*inputs)
        sizes = stage(*(np.abs(array) for array in inputs))
        counts = stage(*((array != 0).astype(np.float64) for array in inputs))
        expected = []
        for value, size, count in zip(values, sizes, counts, strict=True):
            n = count + 1
            growth = np.minimum(n / CONFIDENCE, np.sqrt(n))
            expected.append(Expectation(value, growth * self._unit * size + n * self._smallest))
        return expected

    def of_loss(self, logits: Array, labels: Array) -> Expectation:
        """Bound the loss.

        A sample's −log p sums exponentials of z − max z: an error of u·|zₖ − max z| in the exponent
        is one of pₖ·u·|zₖ − max z| in the logarithm of the sum; exp, the sum of ten and log add a
        few roundings, and so do the differences from max z and the label's logit, of their own
        size. The mean of B samples adds √B roundings of their size.
        """
        value = reference.loss(logits, labels)
        top, picked = np.abs(logits).max(axis=1), np.abs(logits[np.arange(len(labels)), labels])
        each = -reference.log_softmax(logits)[np.arange(len(labels)), labels]
        error = self._logarithm(logits) + top + picked + (1 + np.sqrt(len(labels))) * each
        return Expectation(np.asarray(value), np.asarray(self._unit * error.mean()))

    def of_probabilities(self, logits: Array) -> Expectation:
        """softmax(z) has the relative error that log p has as an absolute one."""
        p, error = self._softmax(logits)
        return Expectation(p, self._unit * error + self._smallest)

    def of_logits_gradient(self, logits: Array, labels: Array) -> Expectation:
        """(p − one-hot)/B: subtraction and division round the result."""
        value = reference.logits_gradient(logits, labels)
        error = self._softmax(logits)[1] / len(labels) + 2 * np.abs(value)
        return Expectation(value, self._unit * error + 2 * self._smallest)

    def of_m(self, m: Array, g: Array) -> Expectation:
        """Adam's first moment, also written m + (1 − b1)·(g − m); its constants are rounded too."""
        size = np.abs(m) + 2 * (1 - B1) * (np.abs(g) + np.abs(m))
        return Expectation(reference.adam_m(m, g), 2 * self._unit * size + 3 * self._smallest)

    def of_v(self, v: Array, g: Array) -> Expectation:
        """Adam's second moment: three products and a sum of squares."""
        after = reference.adam_v(v, g)
        return Expectation(after, 4 * self._unit * after + 3 * self._smallest)

    def of_update(self, p: Array, m: Array, v: Array, step: int, lr: float) -> Expectation:
        """Bound the parameters after an update with the moments m and v.

        1 − b^t, computed from a rounded b, errs by (t + 2) roundings of b^t and one of its own: at
        t = 1 that is a relative error of 3/(1 − b). v̂ counts half, under the root. The quotient,
        the root and the products add eight roundings, the sum with p one.
        """
        update = reference.adam_update(m, v, step=step, lr=lr)
        correction = [1 + (step + 2) * b**step / (1 - b**step) for b in (B1, B2)]
        relative = correction[0] + correction[1] / 2 + 8
        error = np.abs(update) * relative + np.abs(p) + np.abs(update)
        return Expectation(p + update, self._unit * error + self._smallest)

    def _softmax(self, logits: Array) -> tuple[Array, Array]:
        """Return p = exp(log p) and its error, in units."""
        log_p = reference.log_softmax(logits)
        relative = np.abs(log_p) + self._logarithm(logits)[:, None] + _ELEMENTARY
        p = np.exp(log_p)
        return p, p * relative

    def _logarithm(self, logits: Array) -> Array:
        """Return the error, in units, of log Σ exp(z − max z)."""
        shifted = logits - logits.max(axis=1, keepdims=True)
        p = np.exp(reference.log_softmax(logits))
        log_sum = np.log(np.exp(shifted).sum(axis=1))
        return (p * np.abs(shifted)).sum(axis=1) + log_sum + _ELEMENTARY
