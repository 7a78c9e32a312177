"""Losses."""
# PyTorch takes tuples as lengths, and annotates a tensor:
# pyright: reportArgumentType=false

# pyright: reportArgumentType=false
# ctc_loss takes tuples as lengths, which its signature does not say.

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F

from docs.entries import Entry, integers, normal, positive

LABELS = integers(4, below=5)
LOGITS = (normal(4, 5), LABELS)
TWO = (normal(4, 5), normal(4, 5, seed=1))
BINARY = (normal(4, 5), integers(4, 5, below=2).astype(float))
PROBABILITIES = (np.log(positive(4, 5)), positive(4, 5, seed=1))
SOME = (normal(4, 5), np.array([1, -100, 3, 0]))

ENTRIES = [
    Entry("cross entropy", lambda x, labels: F.cross_entropy(x, labels),
          lambda x, labels: optax.softmax_cross_entropy_with_integer_labels(x, labels).mean(),
          LOGITS),
    Entry("cross entropy, no mean", lambda x, labels: F.cross_entropy(x, labels),
          lambda x, labels: optax.softmax_cross_entropy_with_integer_labels(x, labels).sum(),
          LOGITS,
          with_options=lambda x, labels:
          optax.softmax_cross_entropy_with_integer_labels(x, labels).mean()),
    Entry("cross entropy, smoothed",
          lambda x, labels: F.cross_entropy(x, labels, label_smoothing=0.1),
          lambda x, labels: optax.softmax_cross_entropy(
              x, optax.smooth_labels(jax.nn.one_hot(labels, 5, dtype=x.dtype), 0.1)).mean(),
          LOGITS),
    Entry("cross entropy, images", lambda x, labels: F.cross_entropy(x, labels),
          lambda x, labels:
          optax.softmax_cross_entropy_with_integer_labels(x, labels, axis=1).mean(),
          (normal(2, 5, 3), integers(2, 3, below=5))),
    Entry("cross entropy, ignored labels", lambda x, labels: F.cross_entropy(x, labels),
          lambda x, labels: optax.softmax_cross_entropy_with_integer_labels(
              x, labels, where=labels >= 0).mean(), SOME,
          with_options=lambda x, labels: optax.softmax_cross_entropy_with_integer_labels(
              x, labels, where=labels >= 0).sum() / (labels >= 0).sum()),
    Entry("cross entropy, weights of classes",
          lambda x, labels: F.cross_entropy(x, labels, weight=torch.arange(1.0, 6).to(x)),
          lambda x, labels: (optax.softmax_cross_entropy_with_integer_labels(x, labels)
                             * jnp.arange(1.0, 6)[labels]).mean(), LOGITS,
          with_options=lambda x, labels: jnp.average(
              optax.softmax_cross_entropy_with_integer_labels(x, labels),
              weights=jnp.arange(1.0, 6)[labels])),
    Entry("negative log likelihood", lambda x, labels: F.nll_loss(x, labels),
          lambda x, labels: -jnp.take_along_axis(x, labels[:, None], 1).mean(), LOGITS),
    Entry("binary cross entropy of logits", lambda x, y: F.binary_cross_entropy_with_logits(x, y),
          lambda x, y: optax.sigmoid_binary_cross_entropy(x, y).mean(), BINARY),
    Entry("binary cross entropy, weight of positives",
          lambda x, y: F.binary_cross_entropy_with_logits(x, y, pos_weight=x.new_tensor(3.0)),
          lambda x, y:
          -(3 * y * jax.nn.log_sigmoid(x) + (1 - y) * jax.nn.log_sigmoid(-x)).mean(), BINARY),
    Entry("mean of squares", lambda x, y: F.mse_loss(x, y),
          lambda x, y: optax.squared_error(x, y).mean(), TWO),
    Entry("l2 loss", lambda x, y: F.mse_loss(x, y), lambda x, y: optax.l2_loss(x, y).mean(), TWO,
          with_options=lambda x, y: optax.squared_error(x, y).mean()),
    Entry("l1 loss", lambda x, y: F.l1_loss(x, y), lambda x, y: jnp.abs(x - y).mean(), TWO),
    Entry("l1 loss, also where equal", lambda x, y: F.l1_loss(x, y),
          lambda x, y: jnp.abs(x - y).mean(), (TWO[0].round(), TWO[1].round()),
          note="at 0 JAX's gradient of `jnp.abs` is 1, PyTorch's 0"),
    Entry("huber loss", lambda x, y: F.huber_loss(x, y),
          lambda x, y: optax.huber_loss(x, y).mean(), TWO),
    Entry("smooth l1 loss", lambda x, y: F.smooth_l1_loss(x, y, beta=0.5),
          lambda x, y: optax.huber_loss(x, y, delta=0.5).mean(), TWO,
          with_options=lambda x, y: optax.huber_loss(x, y, delta=0.5).mean() / 0.5),
    Entry("kl divergence", lambda x, y: F.kl_div(x, y),
          lambda x, y: optax.kl_divergence(x, y).mean(), PROBABILITIES,
          with_options=lambda x, y: optax.kl_divergence(x, y).mean() / x.shape[-1]),
    Entry("kl divergence, batchmean", lambda x, y: F.kl_div(x, y, reduction="batchmean"),
          lambda x, y: optax.kl_divergence(x, y).mean(), PROBABILITIES),
    Entry("kl divergence of logarithms",
          lambda x, y: F.kl_div(x, y, reduction="batchmean", log_target=True),
          lambda x, y: optax.losses.kl_divergence_with_log_targets(x, y).mean(), TWO),
    Entry("cosine similarity", lambda x, y: F.cosine_similarity(x, y),
          lambda x, y: optax.cosine_similarity(x, y), TWO),
    Entry("cosine similarity of short vectors", lambda x, y: F.cosine_similarity(x, y),
          lambda x, y: optax.cosine_similarity(x, y), (1e-5 * TWO[0], 1e-5 * TWO[1])),
    Entry("hinge loss", lambda x, y: F.hinge_embedding_loss(x * y, -torch.ones_like(y)),
          lambda x, y: optax.hinge_loss(x, y).mean(), (TWO[0], 2 * BINARY[1] - 1)),
    Entry("multi-class hinge loss", lambda x, labels: F.multi_margin_loss(x, labels),
          lambda x, labels: optax.losses.multiclass_hinge_loss(x, labels).mean(), LOGITS,
          note="PyTorch sums over all wrong classes and divides by the number of classes,"
          " Optax takes the worst one"),
    Entry("triplet loss", lambda x, y, z: F.triplet_margin_loss(x, y, z),
          lambda x, y, z: optax.losses.triplet_margin_loss(x, y, z).mean(),
          (*TWO, normal(4, 5, seed=2)),
          note="PyTorch adds its 1e-6 to each difference, Optax to the sum of squares"),
    Entry("poisson loss", lambda x, y: F.poisson_nll_loss(x, y),
          lambda x, y: (jnp.exp(x) - y * x).mean(), BINARY),
    Entry("gaussian loss", lambda x, y, v: F.gaussian_nll_loss(x, y, v),
          lambda x, y, v: 0.5 * (jnp.log(v) + (x - y) ** 2 / v).mean(), (*TWO, positive(4, 5))),
    Entry("ctc loss, sums of a batch",
          lambda x, labels: F.ctc_loss(F.log_softmax(x, -1).transpose(0, 1), labels, (6, 6), (2, 2),
                                       reduction="sum"),
          lambda x, labels: optax.ctc_loss(
              x, jnp.zeros(x.shape[:2]), labels, jnp.zeros(labels.shape)).sum(),
          (normal(2, 6, 4), np.array([[1, 2], [3, 1]]))),
]  # fmt: skip
