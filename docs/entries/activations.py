"""Activations."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from docs.entries import Entry, normal

X = (3 * normal(4, 6),)
EDGES = (normal(4, 6).round() * 3,)
"""With zeros, threes and sixes: where pieces of functions meet."""

ENTRIES = [
    Entry("relu", lambda x: F.relu(x), lambda x: jax.nn.relu(x), X),
    Entry("relu, also at 0", lambda x: F.relu(x), lambda x: jnp.maximum(x, 0), EDGES,
          with_options=lambda x: jax.nn.relu(x)),
    Entry("relu6", lambda x: F.relu6(x), lambda x: jax.nn.relu6(x), X),
    Entry("relu6, also at 0 and 6", lambda x: F.relu6(x), lambda x: jax.nn.relu6(x), EDGES),
    Entry("gelu", lambda x: F.gelu(x), lambda x: jax.nn.gelu(x), X,
          with_options=lambda x: jax.nn.gelu(x, approximate=False)),
    Entry("gelu, tanh", lambda x: F.gelu(x, approximate="tanh"), lambda x: jax.nn.gelu(x), X),
    Entry("silu", lambda x: F.silu(x), lambda x: jax.nn.silu(x), X),
    Entry("elu", lambda x: F.elu(x), lambda x: jax.nn.elu(x), X),
    Entry("celu", lambda x: F.celu(x, alpha=2.0), lambda x: jax.nn.celu(x, alpha=2.0), X),
    Entry("selu", lambda x: F.selu(x), lambda x: jax.nn.selu(x), X),
    Entry("leaky relu", lambda x: F.leaky_relu(x), lambda x: jax.nn.leaky_relu(x), X),
    Entry("prelu", lambda x, a: F.prelu(x, a), lambda x, a: jnp.where(x >= 0, x, a * x),
          (*X, normal(1, seed=1))),
    Entry("softplus", lambda x: F.softplus(x), lambda x: jax.nn.softplus(x), X),
    Entry("softplus, x above 20", lambda x: F.softplus(x), lambda x: jax.nn.softplus(x),
          (np.array([-3.0, 19.0, 20.5, 21.0]),),
          with_options=lambda x: jnp.where(x > 20, x, jax.nn.softplus(x)),
          note="above its threshold of 20 PyTorch returns x"),
    Entry("mish", lambda x: F.mish(x), lambda x: jax.nn.mish(x), X),
    Entry("hard swish", lambda x: F.hardswish(x), lambda x: jax.nn.hard_swish(x), X),
    Entry("hard sigmoid", lambda x: F.hardsigmoid(x), lambda x: jax.nn.hard_sigmoid(x), X),
    Entry("hard tanh", lambda x: F.hardtanh(x), lambda x: jax.nn.hard_tanh(x), X),
    Entry("hard tanh, also at -1 and 1", lambda x: F.hardtanh(x), lambda x: jax.nn.hard_tanh(x),
          (EDGES[0] / 3,),
          note="at -1 and 1 PyTorch's gradient is 0, JAX's 1"),
    Entry("glu", lambda x: F.glu(x), lambda x: jax.nn.glu(x), X),
    Entry("log sigmoid", lambda x: F.logsigmoid(x), lambda x: jax.nn.log_sigmoid(x), X),
    Entry("soft sign", lambda x: F.softsign(x), lambda x: jax.nn.soft_sign(x), X),
    Entry("squareplus", lambda x: (x + torch.sqrt(x * x + 4)) / 2,
          lambda x: jax.nn.squareplus(x), X),
    Entry("softmax", lambda x: F.softmax(x, -1), lambda x: jax.nn.softmax(x), X),
    Entry("log softmax", lambda x: F.log_softmax(x, -1), lambda x: jax.nn.log_softmax(x), X),
    Entry("softmax of images, channels", lambda x: F.softmax(x, 1), lambda x: jax.nn.softmax(x),
          (normal(2, 3, 4),), with_options=lambda x: jax.nn.softmax(x, axis=1)),
    Entry("logsumexp", lambda x: torch.logsumexp(x, 0), lambda x: jax.nn.logsumexp(x, axis=0), X),
    Entry("standardize", lambda x: (x - x.mean(-1, True)) / x.std(-1, keepdim=True),
          lambda x: jax.nn.standardize(x), X,
          with_options=lambda x: (x - x.mean(-1, keepdims=True)) / x.std(-1, ddof=1, keepdims=True),
          note="JAX divides the variance by n and adds 1e-5 to it"),
]  # fmt: skip
