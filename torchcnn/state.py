"""The border between PyTorch's state and the canonical one, which has PyTorch's own layout."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from parity.contract.errors import StateError
from parity.contract.recipe import Recipe
from parity.contract.state import PARAMETERS, Arrays, State
from torchcnn.device import resolve, torch_device
from torchcnn.fused import FusedCNN
from torchcnn.model import CNN
from torchcnn.optim import adam
from torchcnn.parallel import replicated


@dataclass(frozen=True)
class TrainState:
    """What a step reads and writes; PyTorch updates it in place."""

    model: CNN
    optimizer: torch.optim.Adam
    replica: nn.Module
    """The model; of several processes, the one whose gradients are averaged."""


def import_state(state: State, recipe: Recipe) -> TrainState:
    """Build model and optimiser by copying a state; raise StateError if it has another dtype."""
    if state.dtype != recipe.dtype:
        raise StateError(f"the state is {state.dtype}, but the recipe asks for {recipe.dtype}")
    recipe = resolve(recipe)
    device = torch_device(recipe.device)
    network = FusedCNN if recipe.kernel == "fused" else CNN
    with torch.device("meta"):  # its values come from the state
        model = network(dtype=getattr(torch, recipe.dtype))
    weights = {name: _to_native(value, device) for name, value in state.params.items()}
    model.load_state_dict(weights, strict=True, assign=True)
    optimizer = adam(list(model.parameters()), lr=recipe.lr)
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(state.step, dtype=torch.float64),
            "exp_avg": _to_native(state.adam_m[name], device),
            "exp_avg_sq": _to_native(state.adam_v[name], device),
        }
    if recipe.mode == "jit":  # one kernel already: it is faster outside the compiled graph
        optimizer.step = cast(Any, torch.compiler.disable(optimizer.step))
    return TrainState(model, optimizer, replicated(model, recipe))


def export_state(state: TrainState) -> State:
    """Return a canonical copy of model and optimiser; raise StateError for unequal steps."""
    moments = {name: state.optimizer.state[p] for name, p in state.model.named_parameters()}
    steps = {int(moment["step"].item()) for moment in moments.values()}
    if len(steps) != 1:
        raise StateError(f"Adam has made different numbers of steps: {sorted(steps)}")
    return State(
        params=export_arrays(dict(state.model.named_parameters())),
        adam_m=export_arrays({name: moment["exp_avg"] for name, moment in moments.items()}),
        adam_v=export_arrays({name: moment["exp_avg_sq"] for name, moment in moments.items()}),
        step=steps.pop(),
    )


def export_arrays(values: dict[str, Tensor]) -> Arrays:
    """Return canonical copies of parameters, gradients or moments, named as in the model."""
    return {name: export_array(values[name]) for name in PARAMETERS}


def export_array(value: Tensor) -> np.ndarray:
    """Return a contiguous NumPy copy."""
    return np.array(value.detach().cpu().numpy(), order="C", copy=True)


def _to_native(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(array, order="C", copy=True)).to(device)
