"""Adam (Kingma & Ba 2015), with every hyperparameter passed explicitly."""

import functools
from typing import cast

import jax
import optax

from parity.contract.recipe import ADAM_B1, ADAM_B2, ADAM_EPS

OptState = tuple[optax.ScaleByAdamState, optax.EmptyState]
"""State of `optax.adam`: count and moments, then the empty state of the learning rate."""


def adam(params: optax.Params, *, lr: float) -> tuple[optax.GradientTransformation, OptState]:
    """Return Adam over `params`: p ← p − lr · m̂ / (√v̂ + eps), m̂ and v̂ bias-corrected moments.

    Its state has shapes only; the values come from outside, as the parameters' do.
    """
    transformation = _transformation(lr, ADAM_B1, ADAM_B2, ADAM_EPS)
    return transformation, cast(OptState, jax.eval_shape(transformation.init, params))


@functools.cache
def _transformation(lr: float, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Return the one transformation of these hyperparameters: a compiled step is bound to it."""
    return optax.adam(
        learning_rate=lr, b1=b1, b2=b2, eps=eps, eps_root=0.0, mu_dtype=None, nesterov=False
    )
