"""The training step where each process has a share of the batch, and the evaluation step.

The loss is a sum over all shares, divided once by the size of the batch. A mean over each share,
averaged, is another number wherever shares are unequal.

Shapes: B share; images (B, 1, 28, 28).
"""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from parity.contract.group import shares
from parity.contract.harness import ManySteps
from parity.contract.recipe import Recipe
from torchcnn.device import to_host
from torchcnn.loops import compiled, many_steps
from torchcnn.parallel import group, own_share, share_count, summed
from torchcnn.state import TrainState
from torchcnn.steps import Metrics, train_step


def share_step(
    state: TrainState,
    images: Float[Tensor, "B 1 28 28"],
    labels: Int64[Tensor, "B"],
    weights: Float[Tensor, "B"],
    batch_size: int,
) -> tuple[TrainState, Float[Tensor, ""]]:
    """Make the update of `train_step` on a batch of which each process has a share.

    The loss is the mean over the batch, not over the share: a sum, divided once by the batch's
    size. It returns the share's part of it. Weights are 1, and 0 for images that fill up a share.
    """
    state.optimizer.zero_grad()
    loss = weighted_sum(state.replica(images), labels, weights) / batch_size
    (loss * group().count).backward()  # DistributedDataParallel divides by the number of processes
    loss = loss.detach()
    state.optimizer.step()
    return state, loss


def eval_share(
    state: TrainState,
    images: Float[Tensor, "B 1 28 28"],
    labels: Int64[Tensor, "B"],
    weights: Float[Tensor, "B"],
) -> Metrics:
    """Return the metrics of `eval_step` over the images of a share whose weight is 1, not 0."""
    with torch.no_grad():
        logits = state.model(images)
        loss_sum = weighted_sum(logits, labels, weights)
        confusion = labels.new_zeros(10, 10)
        place, counted = (labels, logits.argmax(dim=1)), weights.to(labels.dtype)
        confusion.index_put_(place, counted, accumulate=True)
        return Metrics(loss_sum, confusion)


def weighted_sum(
    logits: Float[Tensor, "B 10"], labels: Int64[Tensor, "B"], weights: Float[Tensor, "B"]
) -> Float[Tensor, ""]:
    """Return the sum of −log softmax(logits)[label], each times its weight."""
    losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.0)
    return (losses * weights).sum()


def training_steps(recipe: Recipe) -> ManySteps:
    """Return many of the steps that train: `train_step`, or `share_step` on its share."""
    if share_count(recipe) > 1:
        return functools.partial(_on_shares, recipe)
    return many_steps(train_step, recipe)


def _on_shares(
    recipe: Recipe, state: TrainState, images: Tensor, labels: Tensor, order: np.ndarray
) -> tuple[TrainState, np.ndarray]:
    columns, of_columns = shares(order, share_count(recipe))
    own, weights = own_share(columns, recipe), own_share(of_columns, recipe).to(images.dtype)
    losses = images.new_empty(len(order))
    for index, rows in enumerate(own):
        state, losses[index] = share_step(
            state, images[rows], labels[rows], weights, order.shape[1]
        )
    return state, to_host([summed(losses)])[0]


def share_metrics(
    state: TrainState, images: Tensor, labels: Tensor, batch: np.ndarray, recipe: Recipe
) -> Metrics:
    """Return the metrics over the images of a batch of indices, each counted by one process."""
    columns, of_columns = shares(batch[None], share_count(recipe))
    rows, weights = own_share(columns[0], recipe), own_share(of_columns, recipe).to(images.dtype)
    metrics = compiled(eval_share, recipe.mode)(state, images[rows], labels[rows], weights)
    return Metrics(*map(summed, metrics))
