"""What the harness drives and times: a training step by step, and a training to be timed."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from parity.contract import harness
from parity.contract.backend import Trace
from parity.contract.data.datasets import Dataset
from parity.contract.recipe import Recipe
from parity.contract.state import State
from torchcnn.device import computing, resolve, to_device
from torchcnn.loops import compiled
from torchcnn.shares import training_steps
from torchcnn.state import export_array, export_arrays, export_state, import_state
from torchcnn.steps import StageValues, predict_step, trace_step
from torchcnn.train import on_device, train_epoch


@contextlib.contextmanager
def session(recipe: Recipe, state: State) -> Iterator[harness.Session]:
    """Open a training at `state`; raise DeviceError, or StateError for another dtype."""
    recipe = resolve(recipe)
    with computing(recipe):
        yield _Session(recipe, state, _functions(recipe))


@contextlib.contextmanager
def workload(recipe: Recipe, state: State, dataset: Dataset) -> Iterator[harness.Workload]:
    """Open trainings from `state` on a data set and on its first batch, to be timed."""
    recipe = resolve(recipe)
    with computing(recipe):
        yield _Workload(recipe, state, dataset, _functions(recipe))


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


class _Session(harness.Session):
    def load(self, state: State) -> None:
        """Continue from another state; in place, since a compiled step is bound to its tensors."""
        source = import_state(state, self._recipe)
        own, other = (s.optimizer.state.items() for s in (self._state, source))
        self._state.optimizer.zero_grad()
        with torch.no_grad():
            for (parameter, moments), (value, sources) in zip(own, other, strict=True):
                parameter.copy_(value)
                for name, moment in moments.items():
                    moment.copy_(sources[name])


class _Workload(harness.Workload):
    def repeat(self, repeats: int, function: Callable[..., Tensor], *args: object) -> None:
        for _ in range(repeats):
            function(*args)
        if self._recipe.device != "cpu":
            torch.get_device_module(self._recipe.device).synchronize()

    def product(self, size: int, repeats: int) -> None:
        if self._square is None:
            dtype = getattr(torch, self._recipe.dtype)
            self._square = torch.ones(size, size, dtype=dtype, device=self._recipe.device)
        self.repeat(repeats, torch.mm, self._square, self._square)

    def programs(self) -> int:
        if self._recipe.mode == "eager":
            return 0
        import torch._dynamo.utils

        return torch._dynamo.utils.counters["stats"]["unique_graphs"]

    def device_memory(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self._recipe.device == "cuda" else None


def _canonical(values: StageValues) -> Trace:
    """Return the values, whose layout is the canonical one."""
    native = {**values.activations._asdict(), "loss": values.loss}
    native["grad.logits"] = values.logits_gradient
    gradients = {f"grad.{n}": g for n, g in export_arrays(values.gradients).items()}
    return {name: export_array(value) for name, value in native.items()} | gradients
