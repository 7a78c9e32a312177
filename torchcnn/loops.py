"""Steps in the recipe's mode, and many of them on data that stay on the device.

This is not a lesson. `torch.compile` traces the backward pass of `train_step` as well: forward and
backward are one graph, and the optimizer's step is one kernel already.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parity.contract.harness import ManySteps
from parity.contract.recipe import Mode, Recipe
from torchcnn.device import to_host
from torchcnn.state import TrainState

Step = Callable[..., Any]
"""A function of a state and a batch that `steps.py` defines."""


def compiled(step: Step, mode: Mode) -> Step:
    """Return a step compiled by `torch.compile`, once for each batch size, or as it is."""
    return torch.compile(step, dynamic=False) if mode == "jit" else step


def many_steps(step: Step, recipe: Recipe) -> ManySteps:
    """Return a function that makes one step after the other on batches gathered on the device.

    On a GPU, what is compiled is replayed as a CUDA graph; the next replay overwrites what the last
    one returned.
    """
    if recipe.mode == "jit" and recipe.device == "cuda":
        step = torch.compile(step, dynamic=False, mode="reduce-overhead")
    else:
        step = compiled(step, recipe.mode)

    def steps(
        state: TrainState, images: Tensor, labels: Tensor, order: np.ndarray
    ) -> tuple[TrainState, np.ndarray]:
        losses = images.new_empty(len(order))
        for index, batch in enumerate(torch.from_numpy(order).to(labels.device)):
            state, losses[index] = step(state, images[batch], labels[batch])
        return state, to_host([losses])[0]

    return steps
