"""Adam (Kingma & Ba 2015), with every hyperparameter passed explicitly."""

from collections.abc import Iterable

import torch
from torch import Tensor

from parity.contract.recipe import ADAM_B1, ADAM_B2, ADAM_EPS


def adam(params: Iterable[Tensor], *, lr: float) -> torch.optim.Adam:
    """Return Adam over `params`: p ← p − lr · m̂ / (√v̂ + eps), m̂ and v̂ bias-corrected moments.

    The plain loop is chosen: the fused and foreach variants differ from it by an ulp or two.
    """
    return torch.optim.Adam(
        params,
        lr=lr,
        betas=(ADAM_B1, ADAM_B2),
        eps=ADAM_EPS,
        weight_decay=0.0,
        amsgrad=False,
        maximize=False,
        foreach=False,
        fused=False,
        capturable=False,
        differentiable=False,
    )
