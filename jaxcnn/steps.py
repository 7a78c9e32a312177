"""The training and evaluation steps, and the same step with every stage in the open.

Shapes: B batch; images (B, 28, 28, 1).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from jaxcnn.model import Activations
from jaxcnn.state import TrainState
from parity.contract.recipe import Mode

Step = TypeVar("Step", bound=Callable[..., Any])


class Metrics(NamedTuple):
    """Sums over a batch of test images, to be divided once."""

    loss_sum: Float[Array, ""]
    confusion: Int[Array, "10 10"]
    """Counts, by label and by predicted class."""


class StageValues(NamedTuple):
    """One step from images to gradients."""

    activations: Activations
    loss: Float[Array, ""]
    logits_gradient: Float[Array, "B 10"]
    gradients: nnx.State


def train_step(
    state: TrainState, images: Float[Array, "B 28 28 1"], labels: Int[Array, "B"]
) -> tuple[TrainState, Float[Array, ""]]:
    """Make one update; return the new state and the batch's mean cross-entropy before it."""

    def loss_of(params: nnx.State) -> Float[Array, ""]:
        return cross_entropy(nnx.merge(state.graphdef, params)(images), labels)

    loss, gradients = jax.value_and_grad(loss_of)(state.params)
    return _apply_gradients(state, gradients), loss


def _apply_gradients(state: TrainState, gradients: nnx.State) -> TrainState:
    """Return the state after Adam's update."""
    updates, opt_state = state.transform.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return dataclasses.replace(state, params=params, opt_state=opt_state)


def eval_step(
    state: TrainState, images: Float[Array, "B 28 28 1"], labels: Int[Array, "B"]
) -> Metrics:
    """Return the batch's summed cross-entropy and what it takes each label for."""
    logits = nnx.merge(state.graphdef, state.params)(images)
    loss_sum = cross_entropy(logits, labels) * len(labels)
    confusion = jnp.zeros((10, 10), labels.dtype).at[labels, logits.argmax(axis=1)].add(1)
    return Metrics(loss_sum, confusion)


def predict_step(state: TrainState, images: Float[Array, "B 28 28 1"]) -> Float[Array, "B 10"]:
    """Return the probability of each label for each image."""
    return jax.nn.softmax(nnx.merge(state.graphdef, state.params)(images), axis=1)


def trace_step(
    state: TrainState, images: Float[Array, "B 28 28 1"], labels: Int[Array, "B"]
) -> tuple[TrainState, StageValues]:
    """Make the update of `train_step`; return the new state and every stage up to the gradients.

    Adding zeros to the logits names the place that their gradient is taken at.
    """

    def loss_of(params: nnx.State, zeros: Array) -> tuple[Float[Array, ""], Activations]:
        activations = nnx.merge(state.graphdef, params).stages(images)
        return cross_entropy(activations.logits + zeros, labels), activations

    zeros = jnp.zeros((len(labels), 10), images.dtype)
    (loss, activations), (gradients, logits_gradient) = jax.value_and_grad(
        loss_of, argnums=(0, 1), has_aux=True
    )(state.params, zeros)
    values = StageValues(activations, loss, logits_gradient, gradients)
    return _apply_gradients(state, gradients), values


def cross_entropy(logits: Float[Array, "B 10"], labels: Int[Array, "B"]) -> Float[Array, ""]:
    """Return the mean over the batch of −log softmax(logits)[label]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def in_mode(step: Step, mode: Mode) -> Step:
    """Return a step compiled by `jax.jit`, once for each batch size, or as it is: op by op."""
    return cast(Step, jax.jit(step)) if mode == "jit" else step
