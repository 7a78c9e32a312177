"""Small pairs of a PyTorch model and its JAX port, right ones and ones with known mistakes.

They are written as different people would: Flax NNX and Linen, functions of a pytree of
parameters, library layers and own ones, under names that differ between the sides.
"""

from tests.pairs.miniatures import (
    attention,
    convolutional,
    encoders,
    experts,
    functions,
    gradients,
    images,
    losses,
    mlp,
    orders,
    precision,
    recurrent,
    several,
    training,
)
from tests.pairs.miniatures.registry import MINIATURES, Expected, Miniature

__all__ = [
    "MINIATURES",
    "Expected",
    "Miniature",
    "attention",
    "convolutional",
    "encoders",
    "experts",
    "functions",
    "gradients",
    "images",
    "losses",
    "mlp",
    "orders",
    "precision",
    "recurrent",
    "several",
    "training",
]
