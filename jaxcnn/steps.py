"""The training and evaluation steps, and the same step with every stage in the open.

Shapes: B batch; images (B, 28, 28, 1).
"""

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Int64

from jaxcnn.device import computing, to_host
from jaxcnn.model import Activations
from jaxcnn.state import TrainState
from parity.contract.recipe import Mode, Recipe
from parity.contract.run.progress import chunk_size

Step = TypeVar("Step", bound=Callable[..., Any])

TrainStep = Callable[[TrainState, Array, Array], tuple[TrainState, Array]]

Steps = Callable[
    [TrainState, Array, Array, Int64[np.ndarray, "steps B"]],
    tuple[TrainState, Float[np.ndarray, "steps"]],
]
"""From a state, images and labels on the device and the indices of each batch: the state after a
step on each, and their losses as float64."""

Repeat = Callable[
    [TrainState, Array, Array, int],
    tuple[TrainState, Float[np.ndarray, "steps"]],
]
"""From a state, a batch on the device and a number of steps: the state after them, their losses."""


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


def in_sequence(step: TrainStep, recipe: Recipe) -> Steps:
    """Return a function that makes one step after the other on batches gathered on the device.

    In jit mode they are one program, whatever their number, and the state is donated. The program
    for the smaller batch that an epoch ends with is compiled while the other runs.
    """
    if recipe.mode == "eager":
        return functools.partial(_one_by_one, step)
    smaller: dict[int, Future[None]] = {}

    def steps(
        state: TrainState, images: Array, labels: Array, order: np.ndarray
    ) -> tuple[TrainState, np.ndarray]:
        width = order.shape[1]
        if width in smaller:
            smaller[width].result()
        elif width == recipe.batch_size and not smaller and (rest := len(labels) % width):
            copy = jax.tree.map(jnp.copy, state)
            compile_program = functools.partial(_compile, step, copy, images, labels, rest, recipe)
            thread = ThreadPoolExecutor(1)
            smaller[rest] = thread.submit(compile_program)
            thread.shutdown(wait=False)
        padded = np.zeros((chunk_size(recipe), width), np.int32)
        padded[: len(order)] = order
        state, losses = _loop(step, state, images, labels, padded, len(order))
        return state, to_host([losses])[0, : len(order)]

    return steps


def _one_by_one(
    step: TrainStep, state: TrainState, images: Array, labels: Array, order: np.ndarray
) -> tuple[TrainState, np.ndarray]:
    losses = []
    for batch in order:
        state, loss = step(state, images[batch], labels[batch])
        losses.append(loss)
    return state, to_host(losses)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _loop(
    step: TrainStep,
    state: TrainState,
    images: Array,
    labels: Array,
    order: Int[Array, "longest B"],
    count: int,
) -> tuple[TrainState, Float[Array, "longest"]]:
    """Make a step on each of the first `count` batches of an order."""

    def body(index: Array, carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
        state, losses = carry
        state, loss = step(state, images[order[index]], labels[order[index]])
        return state, losses.at[index].set(loss)

    return jax.lax.fori_loop(0, count, body, (state, jnp.zeros(len(order), images.dtype)))


def _compile(
    step: TrainStep, state: TrainState, images: Array, labels: Array, width: int, recipe: Recipe
) -> None:
    """Compile the loop for batches of another size, by making no step; for a thread of its own."""
    with computing(recipe):
        no_order = np.zeros((chunk_size(recipe), width), np.int32)
        jax.block_until_ready(_loop(step, state, images, labels, no_order, 0))


def repeatedly(step: TrainStep, recipe: Recipe) -> Repeat:
    """Return a function that makes steps as `in_sequence` does, but all of them on one batch."""
    if recipe.mode == "eager":
        return functools.partial(_again_and_again, step)

    def steps(
        state: TrainState, images: Array, labels: Array, repeats: int
    ) -> tuple[TrainState, np.ndarray]:
        longest, parts = chunk_size(recipe), []
        for start in range(0, repeats, longest):
            count = min(longest, repeats - start)
            state, losses = _repeat(step, longest, state, images, labels, count)
            parts.append(to_host([losses])[0, :count])
        return state, np.concatenate(parts)

    return steps


def _again_and_again(
    step: TrainStep, state: TrainState, images: Array, labels: Array, repeats: int
) -> tuple[TrainState, np.ndarray]:
    losses = []
    for _ in range(repeats):
        state, loss = step(state, images, labels)
        losses.append(loss)
    return state, to_host(losses)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _repeat(
    step: TrainStep, longest: int, state: TrainState, images: Array, labels: Array, count: int
) -> tuple[TrainState, Float[Array, "longest"]]:
    """Make `count` steps on one batch; nothing of them is moved out of the loop."""

    def body(index: Array, carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
        (state, losses), batch = jax.lax.optimization_barrier((carry, (images, labels)))
        state, loss = step(state, *batch)
        return state, losses.at[index].set(loss)

    return jax.lax.fori_loop(0, count, body, (state, jnp.zeros(longest, images.dtype)))
