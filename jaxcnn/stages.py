"""Every stage of one step, in canonical layout, for the harness to compare."""

import numpy as np
from jaxtyping import Float, Int64

from jaxcnn.device import computing, resolve, to_device
from jaxcnn.model import Activations
from jaxcnn.state import export_array, export_arrays, import_state
from jaxcnn.steps import in_mode, trace_step
from parity.contract.backend import Trace
from parity.contract.parameters import State
from parity.contract.recipe import Recipe


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
