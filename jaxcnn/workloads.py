"""What `parity bench` times besides whole epochs: one batch, forward and in training."""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int64

from jaxcnn.device import computing, jax_device, resolve, to_device
from jaxcnn.state import import_state
from jaxcnn.steps import in_mode, predict_step, repeatedly, train_step
from parity.contract.recipe import Recipe
from parity.contract.state import State


class Workload:
    """A batch that stays on the device, and a training on it; to be used within `computing`."""

    def __init__(self, recipe: Recipe, state: State, batch: tuple[Array, Array]) -> None:
        self._device, self._batch = jax_device(recipe.device), batch
        self._state = import_state(state, recipe)
        self._forward = in_mode(predict_step, recipe.mode)
        self._steps = repeatedly(train_step, recipe)
        self._compiled: list[float] = []
        self._dtype, self._square = recipe.dtype, None

    def forward(self, repeats: int) -> None:
        """Compute the batch's probabilities so often, one call each, and wait for them."""
        results = [self._forward(self._state, self._batch[0]) for _ in range(repeats)]
        jax.block_until_ready(results)

    def steps(self, repeats: int) -> Float[np.ndarray, "repeats"]:
        """Make so many of the steps that `fit` makes, on this batch; return their losses."""
        self._state, losses = self._steps(self._state, *self._batch, repeats)
        return losses

    def product(self, size: int, repeats: int) -> None:
        """Multiply two square matrices of that size so often, and wait for it."""
        if self._square is None:
            self._square = jax.device_put(np.ones((size, size), self._dtype), self._device)
        square = self._square
        jax.block_until_ready([_product(square, square) for _ in range(repeats)])

    def programs(self) -> int:
        """Return how many programs have been compiled since this workload was opened."""
        return len(self._compiled)

    def device_memory(self) -> int | None:
        """Return the most bytes that were in use on the device; None where it does not count."""
        return (self._device.memory_stats() or {}).get("peak_bytes_in_use")


_product = jax.jit(lambda a, b: jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST))


@contextlib.contextmanager
def workload(
    recipe: Recipe,
    state: State,
    images: Float[np.ndarray, "B 1 28 28"],
    labels: Int64[np.ndarray, "B"],
) -> Iterator[Workload]:
    """Open a workload on one batch.

    Raises:
        DeviceError: the device is not there.
        StateError: the state's dtype is not the recipe's.
    """
    recipe = resolve(recipe)
    with computing(recipe):
        opened = Workload(recipe, state, to_device(images, labels, recipe))
        with _listening(opened._compiled):
            yield opened


@contextlib.contextmanager
def _listening(compiled: list[float]) -> Iterator[None]:
    """Append the seconds that each program takes to compile, inside this block."""

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
