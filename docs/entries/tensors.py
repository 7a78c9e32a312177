"""Functions of tensors."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from docs.entries import Entry, integers, normal, positive

X = (normal(4, 6),)
TWO = (normal(4, 6), normal(4, 6, seed=1))
LABELS = (integers(4, below=5),)
TIES = (integers(4, 6, below=3).astype(float),)
HALVES = (np.arange(-8, 9) / 2,)
SIGNS = (np.array([7.0, -7.0, 7.0, -7.0]), np.array([3.0, 3.0, -3.0, -3.0]))
WHOLE = tuple(x.astype(int) for x in SIGNS)
SQUARE = (normal(4, 4) + 4 * np.eye(4),)

ENTRIES = [
    Entry("variance", lambda x: torch.var(x, -1), lambda x: jnp.var(x, -1), X,
          with_options=lambda x: jnp.var(x, -1, ddof=1)),
    Entry("standard deviation", lambda x: torch.std(x), lambda x: jnp.std(x), X,
          with_options=lambda x: jnp.std(x, ddof=1)),
    Entry("covariance", lambda x: torch.cov(x), lambda x: jnp.cov(x), X),
    Entry("median of an even number", lambda x: torch.median(x), lambda x: jnp.median(x), X,
          with_options=lambda x: jnp.quantile(x, 0.5, method="lower"),
          note="PyTorch takes the lower of the two in the middle, JAX their mean"),
    Entry("quantile", lambda x: torch.quantile(x, 0.3), lambda x: jnp.quantile(x, 0.3), X),
    Entry("rounding of halves", lambda x: torch.round(x), lambda x: jnp.round(x), HALVES),
    Entry("remainder", lambda x, y: x % y, lambda x, y: x % y, SIGNS),
    Entry("remainder of lax", lambda x, y: torch.remainder(x, y),
          lambda x, y: jax.lax.rem(x, y), SIGNS, with_options=lambda x, y: jnp.remainder(x, y),
          note="the sign is the divisor's in PyTorch, the dividend's in lax"),
    Entry("fmod", lambda x, y: torch.fmod(x, y), lambda x, y: jnp.fmod(x, y), SIGNS),
    Entry("floor division", lambda x, y: x // y, lambda x, y: x // y, WHOLE),
    Entry("truncated division", lambda x, y: torch.div(x, y, rounding_mode="trunc"),
          lambda x, y: x // y, WHOLE, with_options=lambda x, y: jax.lax.div(x, y),
          note="`//` rounds down"),
    Entry("index of the largest, ties", lambda x: torch.argmax(x, -1),
          lambda x: jnp.argmax(x, -1), TIES),
    Entry("stable order, ties", lambda x: torch.argsort(x, dim=-1, stable=True),
          lambda x: jnp.argsort(x, -1), TIES),
    Entry("descending order, ties",
          lambda x: torch.sort(x, dim=-1, descending=True, stable=True).indices,
          lambda x: jnp.argsort(x, -1)[:, ::-1], TIES,
          with_options=lambda x: jnp.argsort(x, -1, descending=True),
          note="reversing the order reverses ties too"),
    Entry("largest, ties", lambda x: torch.max(x, -1).values, lambda x: jnp.max(x, -1), TIES,
          note="`torch.max` gives the gradient to one, JAX shares it"),
    Entry("amax, ties", lambda x: torch.amax(x, -1), lambda x: jnp.max(x, -1), TIES),
    Entry("larger of two, ties", lambda x: torch.maximum(x, x.round()),
          lambda x: jnp.maximum(x, x.round()), TIES),
    Entry("clamp, also at its bounds", lambda x: torch.clamp(x, 0, 2), lambda x: jnp.clip(x, 0, 2),
          TIES),
    Entry("absolute value, also of 0", lambda x: torch.abs(x), lambda x: jnp.abs(x), TIES,
          note="at 0 JAX's gradient is 1, PyTorch's 0"),
    Entry("absolute value", lambda x: torch.abs(x), lambda x: jnp.abs(x), X),
    Entry("norm of a matrix", lambda x: torch.linalg.norm(x), lambda x: jnp.linalg.norm(x), X),
    Entry("norm of zeros", lambda x: torch.linalg.norm(x), lambda x: jnp.linalg.norm(x),
          (X[0] * 0,), note="at 0 PyTorch's gradient is 0, JAX's not a number"),
    Entry("distances", lambda x, y: torch.cdist(x, y),
          lambda x, y: jnp.linalg.norm(x[:, None] - y[None], axis=-1), TWO),
    Entry("sums so far", lambda x: torch.cumsum(x, -1), lambda x: jnp.cumsum(x, -1), X),
    Entry("sums so far by default", lambda x: torch.cumsum(x.flatten(), 0),
          lambda x: jnp.cumsum(x), X),
    Entry("product with a zero", lambda x: torch.prod(x, -1), lambda x: jnp.prod(x, -1), TIES),
    Entry("one hot", lambda t: F.one_hot(t, 5), lambda t: jax.nn.one_hot(t, 5), LABELS),
    Entry("einsum", lambda x, y: torch.einsum("ni,nj->ij", x, y),
          lambda x, y: jnp.einsum("ni,nj->ij", x, y), TWO),
    Entry("roll", lambda x: torch.roll(x, 2), lambda x: jnp.roll(x, 2), X),
    Entry("gather", lambda x, t: torch.gather(x, 1, t[:, None]),
          lambda x, t: jnp.take_along_axis(x, t[:, None], 1), (*X, *LABELS)),
    Entry("rows by index", lambda x, t: torch.index_select(x, 1, t),
          lambda x, t: jnp.take(x, t, axis=1), (*X, *LABELS)),
    Entry("sums by index", lambda x, t: x.new_zeros(5, 6).index_add(0, t, x),
          lambda x, t: jax.ops.segment_sum(x, t, 5), (*X, *LABELS)),
    Entry("scattered sums", lambda x, t: x.scatter_add(1, t[:, None], x[:, :1]),
          lambda x, t: x.at[jnp.arange(4), t].add(x[:, 0]), (*X, *LABELS)),
    Entry("grid of coordinates", lambda x, y: torch.meshgrid(x, y, indexing="ij")[0].ravel(),
          lambda x, y: jnp.meshgrid(x, y)[0].ravel(), (normal(3), normal(3, seed=1)),
          with_options=lambda x, y: jnp.meshgrid(x, y, indexing="ij")[0].ravel()),
    Entry("points of an interval", lambda x: x * torch.linspace(0, 1, 6).to(x),
          lambda x: x * jnp.linspace(0, 1, 6), X),
    Entry("range, int", lambda x: x * torch.arange(6), lambda x: x * jnp.arange(6), X),
    Entry("repetition of the whole", lambda x: x.repeat(2, 1), lambda x: x.repeat(2, 0), X,
          with_options=lambda x: jnp.tile(x, (2, 1))),
    Entry("repetition of each", lambda x: x.repeat_interleave(2, 0), lambda x: x.repeat(2, 0), X),
    Entry("parts", lambda x: torch.chunk(x, 2, -1), lambda x: jnp.split(x, 2, -1), X),
    Entry("place in a sorted array", lambda x, y: torch.searchsorted(x, y),
          lambda x, y: jnp.searchsorted(x, y), (np.arange(4.0), np.arange(4.0) / 2)),
    Entry("logarithm of a sum of two", lambda x, y: torch.logaddexp(x, y),
          lambda x, y: jnp.logaddexp(x, y), TWO),
    Entry("error function", lambda x: torch.erf(x), lambda x: jax.scipy.special.erf(x), X),
    Entry("logarithm of gamma", lambda x: torch.lgamma(x), lambda x: jax.scipy.special.gammaln(x),
          (positive(4, 6),)),
    Entry("inverse", lambda x: torch.linalg.inv(x), lambda x: jnp.linalg.inv(x), SQUARE),
    Entry("logarithm of a determinant", lambda x: torch.linalg.slogdet(x)[1],
          lambda x: jnp.linalg.slogdet(x)[1], SQUARE),
    Entry("lower triangle", lambda x: torch.tril(x, -1), lambda x: jnp.tril(x), X,
          with_options=lambda x: jnp.tril(x, -1)),
    Entry("numbers that are none", lambda x: torch.nan_to_num(x / x.round(), 0.0, 9.0, -9.0),
          lambda x: jnp.nan_to_num(x / x.round(), nan=0.0, posinf=9.0, neginf=-9.0), X),
]  # fmt: skip
