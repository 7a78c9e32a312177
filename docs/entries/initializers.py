"""Initialisers, as functions of the same quantiles."""

import math

import numpy as np
from flax import nnx
from torch import nn

from docs.entries import Initial

KERNEL = (np.zeros((8, 4, 3, 3)),)

ENTRIES = [
    Initial("xavier, uniform", lambda w: nn.init.xavier_uniform_(w),
            lambda: nnx.initializers.glorot_uniform()),
    Initial("xavier, normal", lambda w: nn.init.xavier_normal_(w),
            lambda: nnx.initializers.glorot_normal(),
            with_options=lambda: nnx.initializers.variance_scaling(1.0, "fan_avg", "normal"),
            note="of one variance, but Flax's is cut at two standard deviations"),
    Initial("kaiming, uniform", lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
            lambda: nnx.initializers.he_uniform()),
    Initial("kaiming, uniform, kernel",
            lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
            lambda: nnx.initializers.he_uniform(), KERNEL),
    Initial("kaiming, normal", lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
            lambda: nnx.initializers.he_normal(),
            with_options=lambda: nnx.initializers.variance_scaling(2.0, "fan_in", "normal"),
            note="of one variance, but Flax's is cut at two standard deviations"),
    Initial("kaiming, fan_out, kernel",
            lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
            lambda: nnx.initializers.variance_scaling(2.0, "fan_out", "normal"), KERNEL),
    Initial("weights of a linear layer by default",
            lambda w: nn.init.kaiming_uniform_(w, math.sqrt(5)),
            lambda: nnx.initializers.lecun_normal(),
            with_options=lambda: nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
            note="PyTorch's variance is 1 / (3 fan_in) and uniform, Flax's 1 / fan_in and normal"),
    Initial("weights of a convolution by default",
            lambda w: nn.init.kaiming_uniform_(w, math.sqrt(5)),
            lambda: nnx.initializers.lecun_normal(), KERNEL,
            with_options=lambda: nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
            note="PyTorch's variance is 1 / (3 fan_in) and uniform, Flax's 1 / fan_in and normal"),
    Initial("weights of an embedding by default", lambda w: nn.init.normal_(w),
            lambda: nnx.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0),
            with_options=lambda: nnx.initializers.normal(1.0)),
    Initial("uniform", lambda w: nn.init.uniform_(w), lambda: nnx.initializers.uniform(),
            with_options=lambda: nnx.initializers.uniform(1.0)),
    Initial("normal", lambda w: nn.init.normal_(w), lambda: nnx.initializers.normal(),
            with_options=lambda: nnx.initializers.normal(1.0)),
]  # fmt: skip
