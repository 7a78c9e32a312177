"""What the harness drives and times: a training step by step, and a training to be timed."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcnn.device import computing, jax_device, resolve, to_device
from jaxcnn.loops import compiled, many_steps
from jaxcnn.model import Activations
from jaxcnn.state import export_array, export_arrays, export_state, import_state
from jaxcnn.steps import StageValues, predict_step, trace_step, train_step
from jaxcnn.train import on_device, train_epoch
from parity.contract import harness
from parity.contract.backend import Trace
from parity.contract.data.datasets import Dataset, Split
from parity.contract.recipe import Recipe
from parity.contract.run.progress import Progress
from parity.contract.state import State


@contextlib.contextmanager
def session(recipe: Recipe, state: State) -> Iterator[harness.Session]:
    """Open a training at `state`; raise DeviceError, or StateError for another dtype."""
    recipe = resolve(recipe)
    with computing(recipe):
        yield _Session(
            recipe,
            import_state(state, recipe),
            many_steps=many_steps(train_step, recipe),
            trace_step=compiled(trace_step, recipe.mode),
        )


@contextlib.contextmanager
def workload(recipe: Recipe, state: State, dataset: Dataset) -> Iterator[harness.Workload]:
    """Open trainings from `state` on a data set and on its first batch, to be timed."""
    recipe = resolve(recipe)
    with computing(recipe):
        opened = _Workload(recipe, state, dataset)
        with opened.counting():
            yield opened


class _Session(harness.Session):
    def to_device(self, images: Any, labels: Any) -> tuple[Array, Array]:
        return to_device(images, labels, self._recipe)

    def canonical(self, values: StageValues) -> Trace:
        return {
            **_canonical(values.activations),
            "loss": export_array(values.loss),
            "grad.logits": export_array(values.logits_gradient),
            **{f"grad.{name}": g for name, g in export_arrays(values.gradients).items()},
        }

    def export(self) -> State:
        return export_state(self._state)

    def load(self, state: State) -> None:
        self._state = import_state(state, self._recipe)


class _Workload(harness.Workload):
    def __init__(self, recipe: Recipe, state: State, dataset: Dataset) -> None:
        train, steps = dataset.train, many_steps(train_step, recipe)
        first = next(recipe.batches(1, len(train)))
        data = on_device(train, recipe)
        super().__init__(
            recipe,
            on_device(Split(train.images[first], train.labels[first]), recipe),
            (import_state(state, recipe), import_state(state, recipe)),
            many_steps=steps,
            train_epoch=lambda state, progress: train_epoch(state, data, steps, progress),
            progress=Progress(recipe, dataset, None),
        )
        self._device = jax_device(recipe.device)
        self._forward, self._square = compiled(predict_step, recipe.mode), None
        self._compiled: list[float] = []

    def forward(self, repeats: int) -> None:
        results = [self._forward(self._on_batch, self._batch[0]) for _ in range(repeats)]
        jax.block_until_ready(results)

    def product(self, size: int, repeats: int) -> None:
        if self._square is None:
            ones = np.ones((size, size), self._recipe.dtype)
            self._square = jax.device_put(ones, self._device)
        jax.block_until_ready([_product(self._square, self._square) for _ in range(repeats)])

    def programs(self) -> int:
        return len(self._compiled)

    def device_memory(self) -> int | None:
        return (self._device.memory_stats() or {}).get("peak_bytes_in_use")

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count the programs that are compiled inside this block."""

        def listen(event: str, duration_secs: float, **_: str | int) -> None:
            if event == "/jax/core/compile/backend_compile_duration":
                self._compiled.append(duration_secs)

        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)


_product = jax.jit(jnp.matmul)


def _canonical(activations: Activations) -> Trace:
    """Return images as (B, C, H, W), and the flattened ones in the order C, H, W."""
    conv1, relu, pool = (np.asarray(image).transpose(0, 3, 1, 2) for image in activations[:3])
    flatten = np.asarray(activations.flatten).reshape(-1, 13, 13, 16).transpose(0, 3, 1, 2)
    return {
        "conv1": export_array(conv1),
        "relu": export_array(relu),
        "pool": export_array(pool),
        "flatten": export_array(flatten.reshape(-1, 2704)),
        "logits": export_array(activations.logits),
    }
