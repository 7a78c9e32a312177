"""What the harness drives and times: a training step by step, and a training to be timed."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from parity.contract import harness
from parity.contract.backend import Trace
from parity.contract.data.datasets import Dataset, Split
from parity.contract.recipe import Recipe
from parity.contract.run.progress import Progress
from parity.contract.state import State
from torchcnn.device import computing, resolve, to_device, torch_device
from torchcnn.loops import compiled, many_steps
from torchcnn.model import Activations
from torchcnn.state import export_array, export_arrays, export_state, import_state
from torchcnn.steps import StageValues, predict_step, trace_step, train_step
from torchcnn.train import on_device, train_epoch


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
        yield _Workload(recipe, state, dataset)


class _Session(harness.Session):
    def to_device(self, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
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
        """Continue from another state; in place, since a compiled step is bound to its tensors."""
        source = import_state(state, self._recipe)
        own, other = (s.optimizer.state for s in (self._state, source))
        pairs = zip(self._state.model.parameters(), source.model.parameters(), strict=True)
        with torch.no_grad():
            for parameter, value in pairs:
                parameter.copy_(value)
                parameter.grad = None
                for name, moment in other[value].items():
                    own[parameter][name].copy_(moment)


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
        self._device = torch_device(recipe.device)
        self._forward, self._square = compiled(predict_step, recipe.mode), None

    def forward(self, repeats: int) -> None:
        for _ in range(repeats):
            self._forward(self._on_batch, self._batch[0])
        self._wait()

    def product(self, size: int, repeats: int) -> None:
        if self._square is None:
            dtype = getattr(torch, self._recipe.dtype)
            self._square = torch.ones(size, size, dtype=dtype, device=self._device)
        for _ in range(repeats):
            torch.mm(self._square, self._square)
        self._wait()

    def programs(self) -> int:
        if self._recipe.mode == "eager":
            return 0
        import torch._dynamo.utils

        return torch._dynamo.utils.counters["stats"]["unique_graphs"]

    def device_memory(self) -> int | None:
        on_gpu = self._device.type == "cuda"
        return torch.cuda.max_memory_allocated(self._device) if on_gpu else None

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.get_device_module(self._device.type).synchronize()


def _canonical(activations: Activations) -> Trace:
    """Return the activations, whose layout is the canonical one."""
    return {name: export_array(value) for name, value in activations._asdict().items()}
