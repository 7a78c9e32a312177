"""What the harness drives and times: a training step by step, and a training to be timed."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcnn.device import computing, jax_device, resolve, to_device
from jaxcnn.loops import compiled
from jaxcnn.shares import training_steps
from jaxcnn.state import export_array, export_arrays, export_state, import_state
from jaxcnn.steps import StageValues, predict_step, trace_step
from jaxcnn.train import on_device, train_epoch
from parity.contract import harness
from parity.contract.backend import Trace
from parity.contract.data.datasets import Dataset
from parity.contract.recipe import Recipe
from parity.contract.state import State


@contextlib.contextmanager
def session(recipe: Recipe, state: State) -> Iterator[harness.Session]:
    """Open a training at `state`; raise DeviceError, or StateError for another dtype."""
    recipe = resolve(recipe)
    with computing(recipe):
        yield harness.Session(recipe, state, _functions(recipe))


@contextlib.contextmanager
def workload(recipe: Recipe, state: State, dataset: Dataset) -> Iterator[harness.Workload]:
    """Open trainings from `state` on a data set and on its first batch, to be timed."""
    recipe = resolve(recipe)
    with computing(recipe):
        opened = _Workload(recipe, state, dataset, _functions(recipe))
        jax.monitoring.register_event_duration_secs_listener(opened.count)
        try:
            yield opened
        finally:
            jax.monitoring.unregister_event_duration_listener(opened.count)


def _functions(recipe: Recipe) -> harness.Functions:
    return harness.Functions(
        to_device=to_device,
        on_device=on_device,
        import_state=import_state,
        export_state=export_state,
        many_steps=training_steps(recipe),
        train_epoch=train_epoch,
        trace_step=compiled(trace_step, recipe.mode),
        predict_step=compiled(predict_step, recipe.mode),
        canonical=_canonical,
    )


class _Workload(harness.Workload):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._compiled: list[float] = []

    def repeat(self, repeats: int, function: Callable[..., Array], *args: object) -> None:
        jax.block_until_ready([function(*args) for _ in range(repeats)])

    def product(self, size: int, repeats: int) -> None:
        if self._square is None:
            ones = np.ones((size, size), self._recipe.dtype)
            self._square = jax.device_put(ones, jax_device(self._recipe.device))
        self.repeat(repeats, _product, self._square, self._square)

    def count(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Count a program that JAX reports as compiled, in whichever thread."""
        if event == "/jax/core/compile/backend_compile_duration":
            self._compiled.append(duration_secs)

    def programs(self) -> int:
        return len(self._compiled)

    def device_memory(self) -> int | None:
        return (jax_device(self._recipe.device).memory_stats() or {}).get("peak_bytes_in_use")


_product = jax.jit(jnp.matmul)


def _canonical(values: StageValues) -> Trace:
    """Return images as (B, C, H, W), and the flattened ones in the order C, H, W."""
    native = {**values.activations._asdict(), "loss": values.loss}
    native["grad.logits"] = values.logits_gradient
    native["flatten"] = native["flatten"].reshape(-1, 13, 13, 16)
    for name in ("conv1", "relu", "pool", "flatten"):
        native[name] = np.asarray(native[name]).transpose(0, 3, 1, 2)
    native["flatten"] = native["flatten"].reshape(-1, 2704)
    gradients = {f"grad.{n}": g for n, g in export_arrays(values.gradients).items()}
    return {name: export_array(value) for name, value in native.items()} | gradients
