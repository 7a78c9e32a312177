"""Steps in the recipe's mode, and many of them on data that stay on the device.

This is not a lesson. Compiled, many steps are one program of a dynamic number of steps, so that an
epoch of 938 batches takes two programs: one for its full batches, one for its smaller last one.
"""

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcnn.device import computing, to_host
from jaxcnn.state import TrainState
from parity.contract.harness import ManySteps
from parity.contract.recipe import Mode, Recipe
from parity.contract.run.progress import chunk_size

Step = Callable[..., Any]
"""A function of a state and a batch that `steps.py` defines."""


def compiled(step: Step, mode: Mode) -> Step:
    """Return a step compiled by `jax.jit`, once for each batch size, or as it is: op by op."""
    return jax.jit(step) if mode == "jit" else step


def many_steps(step: Step, recipe: Recipe) -> ManySteps:
    """Return a function that makes one step after the other on batches gathered on the device.

    In jit mode it makes `chunk_size(recipe)` of them at most, and takes over the state's memory.
    The program for an epoch's smaller last batch is compiled beside the first steps: 1 s saved.
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
            thread = ThreadPoolExecutor(1)
            smaller[rest] = thread.submit(_compile, step, copy, images, labels, rest, recipe)
            thread.shutdown(wait=False)
        padded = np.zeros((chunk_size(recipe), width), np.int32)
        padded[: len(order)] = order
        state, losses = _loop(step, state, images, labels, padded, len(order))
        return state, to_host([losses])[0, : len(order)]

    return steps


def _one_by_one(
    step: Step, state: TrainState, images: Array, labels: Array, order: np.ndarray
) -> tuple[TrainState, np.ndarray]:
    losses = []
    for batch in order:
        state, loss = step(state, images[batch], labels[batch])
        losses.append(loss)
    return state, to_host(losses)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _loop(
    step: Step, state: TrainState, images: Array, labels: Array, order: Array, count: Array | int
) -> tuple[TrainState, Array]:
    """Make a step on each of the first `count` batches of an order (longest, B)."""

    def body(index: Array, carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
        state, losses = carry
        state, loss = step(state, images[order[index]], labels[order[index]])
        return state, losses.at[index].set(loss)

    return jax.lax.fori_loop(0, count, body, (state, jnp.zeros(len(order), images.dtype)))


def _compile(
    step: Step, state: TrainState, images: Array, labels: Array, width: int, recipe: Recipe
) -> None:
    """Compile the loop for batches of another size, by making no step."""
    with computing(recipe):
        no_order = np.zeros((chunk_size(recipe), width), np.int32)
        jax.block_until_ready(_loop(step, state, images, labels, no_order, 0))
