"""Metrics."""

from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import nnx

from docs.entries import Entry, integers, normal

LOGITS = (normal(8, 5), integers(8, below=5))
TIED = (normal(8, 5).round(), integers(8, below=5))


def computed(metric: Any, **values: Any) -> Any:
    """Return what a metric says after one update."""
    metric.update(**values)
    return metric.compute()


ENTRIES = [
    Entry("accuracy", lambda x, labels: (x.argmax(1) == labels).double().mean(),
          lambda x, labels: computed(nnx.metrics.Accuracy(), logits=x, labels=labels), LOGITS),
    Entry("accuracy, tied logits", lambda x, labels: (x.argmax(1) == labels).double().mean(),
          lambda x, labels: (x.argmax(1) == labels).mean(), TIED),
    Entry("the best three", lambda x: torch.topk(x, 3).values,
          lambda x: jax.lax.top_k(x, 3)[0], (LOGITS[0],)),
    Entry("counts of labels", lambda labels: torch.bincount(labels, minlength=6),
          lambda labels: jnp.bincount(labels, length=6), (LOGITS[1],)),
    Entry("confusion matrix", lambda x, labels: torch.bincount(
              labels * 5 + x.argmax(1), minlength=25).view(5, 5),
          lambda x, labels: jnp.zeros((5, 5), int).at[labels, x.argmax(1)].add(1), LOGITS),
    Entry("mean of a stream", lambda x: x.mean(),
          lambda x: computed(nnx.metrics.Average(), values=x), (LOGITS[0],)),
    Entry("deviation of a stream", lambda x: x.std(),
          lambda x: computed(nnx.metrics.Welford(), values=x).standard_deviation, (LOGITS[0],)),
    Entry("coefficient of determination",
          lambda x, y: 1 - ((x - y) ** 2).sum() / ((y - y.mean()) ** 2).sum(),
          lambda x, y: 1 - ((x - y) ** 2).mean() / y.var(), (normal(9), normal(9, seed=1))),
]  # fmt: skip
