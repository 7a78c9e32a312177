"""The training and evaluation steps, and the same step with every stage in the open.

Shapes: B batch; images (B, 1, 28, 28).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from parity.contract.recipe import Mode
from torchcnn.model import Activations
from torchcnn.state import TrainState

Step = TypeVar("Step", bound=Callable[..., Any])


class Metrics(NamedTuple):
    """Sums over a batch of test images, to be divided once."""

    loss_sum: Float[Tensor, ""]
    confusion: Int64[Tensor, "10 10"]
    """Counts, by label and by predicted class."""


class StageValues(NamedTuple):
    """One step from images to gradients."""

    activations: Activations
    loss: Float[Tensor, ""]
    logits_gradient: Float[Tensor, "B 10"]
    gradients: dict[str, Tensor]


def train_step(
    state: TrainState, images: Float[Tensor, "B 1 28 28"], labels: Int64[Tensor, "B"]
) -> tuple[TrainState, Float[Tensor, ""]]:
    """Make one update; return the new state and the batch's mean cross-entropy before it."""
    state.optimizer.zero_grad()
    loss = cross_entropy(state.model(images), labels)
    loss.backward()
    state.optimizer.step()
    return state, loss.detach()


def eval_step(
    state: TrainState, images: Float[Tensor, "B 1 28 28"], labels: Int64[Tensor, "B"]
) -> Metrics:
    """Return the batch's summed cross-entropy and what it takes each label for."""
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


def trace_step(
    state: TrainState, images: Float[Tensor, "B 1 28 28"], labels: Int64[Tensor, "B"]
) -> tuple[TrainState, StageValues]:
    """Make the update of `train_step`; return the new state and every stage up to the gradients.

    Adding zeros to the logits names the place that their gradient is taken at.
    """
    activations = state.model.stages(images)
    zeros = torch.zeros_like(activations.logits, requires_grad=True)
    loss = cross_entropy(activations.logits + zeros, labels)
    parameters = dict(state.model.named_parameters())
    logits_gradient, *gradients = torch.autograd.grad(loss, [zeros, *parameters.values()])
    for parameter, gradient in zip(parameters.values(), gradients, strict=True):
        parameter.grad = gradient
    state.optimizer.step()
    named = dict(zip(parameters, gradients, strict=True))
    return state, StageValues(activations, loss, logits_gradient, named)


def cross_entropy(logits: Float[Tensor, "B 10"], labels: Int64[Tensor, "B"]) -> Float[Tensor, ""]:
    """Return the mean over the batch of −log softmax(logits)[label]."""
    return F.cross_entropy(logits, labels, reduction="mean", label_smoothing=0.0)


def in_mode(step: Step, mode: Mode) -> Step:
    """Return a step compiled by `torch.compile`, once for each batch size, or as it is."""
    return cast(Step, torch.compile(step, dynamic=False)) if mode == "jit" else step
