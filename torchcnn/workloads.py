"""What `parity bench` times besides whole epochs: one batch, forward and in training."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from parity.contract.recipe import Recipe
from parity.contract.state import State
from torchcnn.device import computing, resolve, to_device, torch_device
from torchcnn.state import import_state
from torchcnn.steps import in_mode, predict_step, repeatedly, train_step


class Workload:
    """A batch that stays on the device, and a training on it; to be used within `computing`."""

    def __init__(self, recipe: Recipe, state: State, batch: tuple[Tensor, Tensor]) -> None:
        self._device, self._batch = torch_device(recipe.device), batch
        self._state = import_state(state, recipe)
        self._forward = in_mode(predict_step, recipe.mode)
        self._steps = repeatedly(train_step, recipe)
        self._compiled = recipe.mode == "jit"
        self._dtype, self._square = getattr(torch, recipe.dtype), None

    def forward(self, repeats: int) -> None:
        """Compute the batch's probabilities so often, one call each, and wait for them."""
        for _ in range(repeats):
            self._forward(self._state, self._batch[0])
        self._wait()

    def steps(self, repeats: int) -> Float[np.ndarray, "repeats"]:
        """Make so many of the steps that `fit` makes, on this batch; return their losses."""
        self._state, losses = self._steps(self._state, *self._batch, repeats)
        return losses

    def product(self, size: int, repeats: int) -> None:
        """Multiply two square matrices of that size so often, and wait for it."""
        if self._square is None:
            self._square = torch.ones(size, size, dtype=self._dtype, device=self._device)
        for _ in range(repeats):
            torch.mm(self._square, self._square)
        self._wait()

    def programs(self) -> int:
        """Return how many programs have been compiled since this workload was opened."""
        if not self._compiled:
            return 0
        import torch._dynamo.utils

        return torch._dynamo.utils.counters["stats"]["unique_graphs"]

    def device_memory(self) -> int | None:
        """Return the most bytes that were in use on the device; None where it does not count."""
        on_gpu = self._device.type == "cuda"
        return torch.cuda.max_memory_allocated(self._device) if on_gpu else None

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.get_device_module(self._device.type).synchronize()


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
        yield Workload(recipe, state, to_device(images, labels, recipe))
