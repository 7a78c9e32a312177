"""The training step, and what else is computed of a batch.

State in, state out, nothing in place: so a step can be compiled, looped over on the device, and
given its state's memory, without splitting a graph of objects at each call, as `nnx.jit` does.

Shapes: B batch; images (B, 28, 28, 1).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from jaxcnn.model import Activations
from jaxcnn.state import TrainState


def train_step(
    state: TrainState, images: Float[Array, "B 28 28 1"], labels: Int[Array, "B"]
) -> tuple[TrainState, Float[Array, ""]]:
    """Make one update; return the new state and the mean cross-entropy before the update."""

    def loss_of(params: nnx.State) -> Float[Array, ""]:
        return cross_entropy(nnx.merge(state.graphdef, params)(images), labels)

    loss, gradients = jax.value_and_grad(loss_of)(state.params)
    updates, opt_state = state.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state.replace(params=params, opt_state=opt_state), loss


class Metrics(NamedTuple):
    """Sums over a batch of test images, to be divided once."""

    loss_sum: Float[Array, ""]
    confusion: Int[Array, "10 10"]
    """Counts, by label and by predicted class."""


def eval_step(
    state: TrainState, images: Float[Array, "B 28 28 1"], labels: Int[Array, "B"]
) -> Metrics:
    """Return the batch's summed cross-entropy, and how often each label is taken for which."""
    logits = nnx.merge(state.graphdef, state.params)(images)
    loss_sum = cross_entropy(logits, labels) * len(labels)
    confusion = jnp.zeros((10, 10), labels.dtype).at[labels, logits.argmax(axis=1)].add(1)
    return Metrics(loss_sum, confusion)


def predict_step(state: TrainState, images: Float[Array, "B 28 28 1"]) -> Float[Array, "B 10"]:
    """Return the probability of each label for each image."""
    return jax.nn.softmax(nnx.merge(state.graphdef, state.params)(images), axis=1)


class StageValues(NamedTuple):
    """One step from images to gradients."""

    activations: Activations
    loss: Float[Array, ""]
    logits_gradient: Float[Array, "B 10"]
    gradients: nnx.State


def trace_step(
    state: TrainState, images: Float[Array, "B 28 28 1"], labels: Int[Array, "B"]
) -> tuple[TrainState, StageValues]:
    """Make the update of `train_step`; return the new state and every stage up to the gradients.

    Zeros added to the logits are the place at which their gradient is taken.
    """

    def loss_of(params: nnx.State, zeros: Array) -> tuple[Float[Array, ""], Activations]:
        activations = nnx.merge(state.graphdef, params).stages(images)
        return cross_entropy(activations.logits + zeros, labels), activations

    zeros = jnp.zeros((len(labels), 10), images.dtype)
    (loss, activations), (gradients, logits_gradient) = jax.value_and_grad(
        loss_of, argnums=(0, 1), has_aux=True
    )(state.params, zeros)
    updates, opt_state = state.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    values = StageValues(activations, loss, logits_gradient, gradients)
    return state.replace(params=params, opt_state=opt_state), values


def cross_entropy(logits: Float[Array, "B 10"], labels: Int[Array, "B"]) -> Float[Array, ""]:
    """Return the mean over the batch of −log softmax(logits)[label]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
