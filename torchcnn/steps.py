"""The training and evaluation steps, and the same step with every stage in the open.

Shapes: B batch; images (B, 1, 28, 28).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from parity.contract.recipe import Mode, Recipe
from torchcnn.device import to_host
from torchcnn.model import Activations
from torchcnn.state import TrainState

Step = TypeVar("Step", bound=Callable[..., Any])

TrainStep = Callable[[TrainState, Tensor, Tensor], tuple[TrainState, Tensor]]

Steps = Callable[
    [TrainState, Tensor, Tensor, Int64[np.ndarray, "steps B"]],
    tuple[TrainState, Float[np.ndarray, "steps"]],
]
"""From a state, images and labels on the device and the indices of each batch: the state after a
step on each, and their losses as float64."""

Repeat = Callable[
    [TrainState, Tensor, Tensor, int],
    tuple[TrainState, Float[np.ndarray, "steps"]],
]
"""From a state, a batch on the device and a number of steps: the state after them, their losses."""


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
    parameters = dict(state.model.named_parameters())
    loss = cross_entropy(state.model(images), labels)
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    loss = loss.detach()  # with its graph it would not fit into the compiled one
    return _apply_gradients(state, dict(zip(parameters, gradients, strict=True))), loss


def _apply_gradients(state: TrainState, gradients: dict[str, Tensor]) -> TrainState:
    """Return the state after Adam's update."""
    for name, parameter in state.model.named_parameters():
        parameter.grad = gradients[name]
    state.update()
    return state


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
    parameters = dict(state.model.named_parameters())
    activations = state.model.stages(images)
    zeros = torch.zeros_like(activations.logits, requires_grad=True)
    loss = cross_entropy(activations.logits + zeros, labels)
    logits_gradient, *gradients = torch.autograd.grad(loss, [zeros, *parameters.values()])
    activations, loss = Activations(*(a.detach() for a in activations)), loss.detach()
    named = dict(zip(parameters, gradients, strict=True))
    values = StageValues(activations, loss, logits_gradient, named)
    return _apply_gradients(state, named), values


def cross_entropy(logits: Float[Tensor, "B 10"], labels: Int64[Tensor, "B"]) -> Float[Tensor, ""]:
    """Return the mean over the batch of −log softmax(logits)[label]."""
    return F.cross_entropy(logits, labels, reduction="mean", label_smoothing=0.0)


def in_mode(step: Step, mode: Mode) -> Step:
    """Return a step compiled by `torch.compile`, once for each batch size, or as it is."""
    return cast(Step, torch.compile(step, dynamic=False)) if mode == "jit" else step


def in_sequence(step: TrainStep, recipe: Recipe) -> Steps:
    """Return a function that makes one step after the other on batches gathered on the device."""
    step = _in_training(step, recipe)

    def steps(
        state: TrainState, images: Tensor, labels: Tensor, order: np.ndarray
    ) -> tuple[TrainState, np.ndarray]:
        losses = images.new_empty(len(order))
        for index, batch in enumerate(torch.from_numpy(order).to(labels.device)):
            state, losses[index] = step(state, images[batch], labels[batch])
        return state, to_host([losses])[0]

    return steps


def repeatedly(step: TrainStep, recipe: Recipe) -> Repeat:
    """Return a function that makes steps as `in_sequence` does, but all of them on one batch."""
    step = _in_training(step, recipe)

    def steps(
        state: TrainState, images: Tensor, labels: Tensor, repeats: int
    ) -> tuple[TrainState, np.ndarray]:
        losses = images.new_empty(repeats)
        for index in range(repeats):
            state, losses[index] = step(state, images, labels)
        return state, to_host([losses])[0]

    return steps


def _in_training(step: TrainStep, recipe: Recipe) -> TrainStep:
    """Return a step in the recipe's mode; on a GPU, what is compiled is replayed as a CUDA graph.

    The next replay overwrites what the last one returned.
    """
    if recipe.mode == "jit" and recipe.device == "cuda":
        return cast(TrainStep, torch.compile(step, dynamic=False, mode="reduce-overhead"))
    return in_mode(step, recipe.mode)
