"""Adam (Kingma & Ba 2015), with every hyperparameter passed explicitly."""

from typing import cast

import optax

from parity.contract.recipe import ADAM_B1, ADAM_B2, ADAM_EPS

OptState = tuple[optax.ScaleByAdamState, optax.EmptyState]
"""Count and moments, and the nothing that scaling by the learning rate keeps."""


def adam(params: optax.Params, *, lr: float) -> tuple[optax.GradientTransformation, OptState]:
    """Return Adam and its state over `params`: p ← p − lr · m̂ / (√v̂ + eps).

    m̂ and v̂ are the bias-corrected moments.
    """
    transform = optax.adam(
        learning_rate=lr,
        b1=ADAM_B1,
        b2=ADAM_B2,
        eps=ADAM_EPS,
        eps_root=0.0,
        mu_dtype=None,
        nesterov=False,
    )
    return transform, cast(OptState, transform.init(params))
