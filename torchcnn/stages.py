"""Every stage of one step, in canonical layout, for the harness to compare."""

import numpy as np
from jaxtyping import Float, Int64

from parity.contract.backend import Trace
from parity.contract.parameters import State
from parity.contract.recipe import Recipe
from torchcnn.device import computing, resolve, to_device
from torchcnn.model import Activations
from torchcnn.state import export_array, export_arrays, import_state
from torchcnn.steps import in_mode, trace_step


def trace(
    recipe: Recipe,
    state: State,
    images: Float[np.ndarray, "batch 1 28 28"],
    labels: Int64[np.ndarray, "batch"],
) -> Trace:
    """Compute one step from `state` and return every stage of `parity.contract.backend.STAGES`."""
    recipe = resolve(recipe)
    with computing(recipe):
        step = in_mode(trace_step, recipe.mode)
        values = step(import_state(state, recipe), *to_device(images, labels, recipe))
        gradients = export_arrays(values.gradients)
        return {
            **_canonical(values.activations),
            "loss": export_array(values.loss),
            "grad.logits": export_array(values.logits_gradient),
            "grad.fc1.weight": gradients["fc1.weight"],
            "grad.fc1.bias": gradients["fc1.bias"],
            "grad.conv1.weight": gradients["conv1.weight"],
            "grad.conv1.bias": gradients["conv1.bias"],
        }


def _canonical(activations: Activations) -> dict[str, np.ndarray]:
    """Return the activations, whose layout is the canonical one."""
    return {name: export_array(value) for name, value in activations._asdict().items()}
