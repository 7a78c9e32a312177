"""The training step where each device has a share of the batch, and the evaluation step.

The loss is a sum over all shares, divided once by the size of the batch. A mean over each share,
averaged, is another number wherever shares are unequal.

Shapes: B share; images (B, 28, 28, 1).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int

from jaxcnn.device import to_host
from jaxcnn.loops import many_steps
from jaxcnn.parallel import AXIS, mesh, on_shares, own_share, share_count, summed
from jaxcnn.state import TrainState
from jaxcnn.steps import Metrics, train_step
from parity.contract.group import shares
from parity.contract.harness import ManySteps
from parity.contract.recipe import Recipe
from parity.contract.run.progress import chunk_size


def share_step(
    state: TrainState,
    images: Float[Array, "B 28 28 1"],
    labels: Int[Array, "B"],
    weights: Float[Array, "B"],
    batch_size: Array | int,
) -> tuple[TrainState, Float[Array, ""]]:
    """Make the update of `train_step` on a batch of which each device has a share.

    The loss is the mean over the batch, not over the share: a sum, divided once by the batch's
    size. It returns the share's part of it. Weights are 1, and 0 for images that fill up a share.
    """

    def loss_of(params: nnx.State) -> Float[Array, ""]:
        logits = nnx.merge(state.graphdef, params)(images)
        return weighted_sum(logits, labels, weights) / batch_size

    own = jax.lax.pcast(state.params, AXIS, to="varying")  # else JAX would sum the gradients itself
    loss, gradients = jax.value_and_grad(loss_of)(own)
    gradients = summed(gradients)
    updates, opt_state = state.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state.replace(params=params, opt_state=opt_state), loss


def eval_share(
    state: TrainState,
    images: Float[Array, "B 28 28 1"],
    labels: Int[Array, "B"],
    weights: Float[Array, "B"],
) -> Metrics:
    """Return the metrics of `eval_step` over the images of a share whose weight is 1, not 0."""
    logits = nnx.merge(state.graphdef, state.params)(images)
    loss_sum = weighted_sum(logits, labels, weights)
    counted = weights.astype(labels.dtype)
    confusion = jnp.zeros((10, 10), labels.dtype).at[labels, logits.argmax(axis=1)].add(counted)
    return Metrics(loss_sum, confusion)


def weighted_sum(
    logits: Float[Array, "B 10"], labels: Int[Array, "B"], weights: Float[Array, "B"]
) -> Float[Array, ""]:
    """Return the sum of −log softmax(logits)[label], each times its weight."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return (losses * weights).sum()


def training_steps(recipe: Recipe) -> ManySteps:
    """Return many of the steps that train: `train_step`, or `share_step` on its share."""
    if share_count(recipe) > 1:
        return functools.partial(_on_shares, recipe)
    return many_steps(train_step, recipe)


def _on_shares(
    recipe: Recipe, state: TrainState, images: Array, labels: Array, order: np.ndarray
) -> tuple[TrainState, np.ndarray]:
    columns, of_columns = shares(order, share_count(recipe))
    padded = np.zeros((chunk_size(recipe), columns.shape[1]), np.int32)
    padded[: len(order)] = columns
    own = own_share(padded, recipe), own_share(of_columns.astype(images.dtype), recipe)
    state, losses = _share_loop(mesh(recipe))(
        state, images, labels, *own, np.int32(len(order)), np.int32(order.shape[1])
    )
    return state, to_host([losses])[0, : len(order)]


@functools.cache
def _share_loop(devices: Mesh) -> Callable[..., tuple[TrainState, Array]]:
    """Return `_loop` for shares: the sum of their losses is taken once, after the last step."""

    def loop(
        state: TrainState, images: Array, labels: Array, order: Array, weights: Array,
        count: Array, batch_size: Array,
    ) -> tuple[TrainState, Array]:  # fmt: skip
        def body(index: Array, carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
            state, losses = carry
            rows = order[index]
            state, loss = share_step(state, images[rows], labels[rows], weights, batch_size)
            return state, losses.at[index].set(loss)

        zeros = jax.lax.pcast(jnp.zeros(len(order), images.dtype), AXIS, to="varying")
        state, losses = jax.lax.fori_loop(0, count, body, (state, zeros))
        return state, summed(losses)

    return jax.jit(on_shares(loop, devices, divided="...cr.."), donate_argnums=0)


def share_metrics(
    state: TrainState, images: Array, labels: Array, batch: np.ndarray, recipe: Recipe
) -> Metrics:
    """Return the metrics over the images of a batch of indices, each counted by one device."""
    columns, of_columns = shares(batch[None], share_count(recipe))
    own = (columns[0].astype(np.int32), of_columns.astype(images.dtype))
    rows, weights = (own_share(values, recipe) for values in own)
    return _share_metrics(mesh(recipe))(state, images, labels, rows, weights)


@functools.cache
def _share_metrics(devices: Mesh) -> Callable[..., Metrics]:
    def metrics(
        state: TrainState, images: Array, labels: Array, rows: Array, weights: Array
    ) -> Metrics:
        return summed(eval_share(state, images[rows], labels[rows], weights))

    return jax.jit(on_shares(metrics, devices, divided="...rr"))
