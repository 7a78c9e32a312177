"""A training driven from outside, one step at a time, in NumPy and canonical layout."""

import contextlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int64

from jaxcnn.device import computing, resolve, to_device
from jaxcnn.model import Activations
from jaxcnn.state import export_array, export_arrays, export_state, import_state
from jaxcnn.steps import in_mode, in_sequence, trace_step, train_step
from parity.contract.backend import STAGES, Trace
from parity.contract.recipe import Recipe
from parity.contract.state import State


class Session:
    """A training that stands between two steps; to be used within `computing`."""

    def __init__(self, recipe: Recipe, state: State) -> None:
        self._recipe = recipe
        self._train_steps = in_sequence(train_step, recipe)
        self._trace_step = in_mode(trace_step, recipe.mode)
        self._state = import_state(state, recipe)

    def step(self, images: Float[np.ndarray, "B 1 28 28"], labels: Int64[np.ndarray, "B"]) -> float:
        """Make one update by the step that training uses; return the loss before it."""
        batch, order = to_device(images, labels, self._recipe), np.arange(len(labels))[None]
        self._state, losses = self._train_steps(self._state, *batch, order)
        return float(losses[0])

    def trace(
        self, images: Float[np.ndarray, "B 1 28 28"], labels: Int64[np.ndarray, "B"]
    ) -> Trace:
        """Make one update with every stage in the open, and return them."""
        batch = to_device(images, labels, self._recipe)
        self._state, values = self._trace_step(self._state, *batch)
        after = self.export()
        stages = {
            **_canonical(values.activations),
            "loss": export_array(values.loss),
            "grad.logits": export_array(values.logits_gradient),
        }
        groups = {
            "grad": export_arrays(values.gradients),
            "adam.m": after.adam_m,
            "adam.v": after.adam_v,
            "params": after.params,
        }
        for group, arrays in groups.items():
            stages |= {f"{group}.{name}": array for name, array in arrays.items()}
        return {stage: stages[stage] for stage in STAGES}

    def export(self) -> State:
        """Return a copy of the present state."""
        return export_state(self._state)

    def load(self, state: State) -> None:
        """Go on from another state."""
        self._state = import_state(state, self._recipe)


@contextlib.contextmanager
def session(recipe: Recipe, state: State) -> Iterator[Session]:
    """Open a training at `state`.

    Sessions of one dtype may be open at once, closed in the reverse order.

    Raises:
        DeviceError: the device is not there.
        StateError: the state's dtype is not the recipe's.
    """
    recipe = resolve(recipe)
    with computing(recipe):
        yield Session(recipe, state)


def _canonical(activations: Activations) -> dict[str, np.ndarray]:
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
