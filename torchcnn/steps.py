"""The training step, and what else is computed of a batch.

Shapes: B batch; images (B, 1, 28, 28).
"""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from torchcnn.model import Activations
from torchcnn.state import TrainState


def train_step(
    state: TrainState, images: Float[Tensor, "B 1 28 28"], labels: Int64[Tensor, "B"]
) -> tuple[TrainState, Float[Tensor, ""]]:
    """Make one update in place; return the state and the mean cross-entropy before the update."""
    state.optimizer.zero_grad()
    loss = cross_entropy(state.model(images), labels)
    loss.backward()
    loss = loss.detach()
    state.optimizer.step()
    return state, loss


class Metrics(NamedTuple):
    """Sums over a batch of test images, to be divided once."""

    loss_sum: Float[Tensor, ""]
    confusion: Int64[Tensor, "10 10"]
    """Counts, by label and by predicted class."""


def eval_step(
    state: TrainState, images: Float[Tensor, "B 1 28 28"], labels: Int64[Tensor, "B"]
) -> Metrics:
    """Return the batch's summed cross-entropy, and how often each label is taken for which."""
    with torch.no_grad():
        logits = state.model(images)
        loss_sum = cross_entropy(logits, labels) * len(labels)
        confusion = labels.new_zeros(10, 10)
        confusion.index_put_((labels, logits.argmax(dim=1)), labels.new_ones(()), accumulate=True)
        return Metrics(loss_sum, confusion)


def predict_step(state: TrainState, images: Float[Tensor, "B 1 28 28"]) -> Float[Tensor, "B 10"]:
    """Return the probability of each label for each image."""
    with torch.no_grad():
        return F.softmax(state.model(images), dim=1)


class StageValues(NamedTuple):
    """One step from images to gradients."""

    activations: Activations
    loss: Float[Tensor, ""]
    logits_gradient: Float[Tensor, "B 10"]
    gradients: dict[str, Tensor]


def trace_step(
    state: TrainState, images: Float[Tensor, "B 1 28 28"], labels: Int64[Tensor, "B"]
) -> tuple[TrainState, StageValues]:
    """Make the update of `train_step`; return the state and every stage up to the gradients.

    Zeros added to the logits are the place at which their gradient is taken.
    """
    state.optimizer.zero_grad()
    activations = state.model.stages(images)
    zeros = torch.zeros_like(activations.logits, requires_grad=True)
    loss = cross_entropy(activations.logits + zeros, labels)
    loss.backward()
    activations = Activations(*(activation.detach() for activation in activations))
    gradients = {name: cast(Tensor, p.grad) for name, p in state.model.named_parameters()}
    values = StageValues(activations, loss.detach(), cast(Tensor, zeros.grad), gradients)
    state.optimizer.step()
    return state, values


def cross_entropy(logits: Float[Tensor, "B 10"], labels: Int64[Tensor, "B"]) -> Float[Tensor, ""]:
    """Return the mean over the batch of −log softmax(logits)[label]."""
    return F.cross_entropy(logits, labels, reduction="mean", label_smoothing=0.0)
