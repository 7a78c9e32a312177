"""How far a step without stages may lie from the oracle: its stages' bounds, added up.

Each stage adds its own rounding to what it makes of the errors before it, from the images on, to
first order.
"""

import itertools

import numpy as np

from parity.contract.backend import Images, Labels
from parity.contract.state import PARAMETERS, State
from parity.truth import reference
from parity.truth.rounding import Expectation, Rounding
from parity.truth.stages import STAGES, expectations

Array = np.ndarray
Expectations = dict[str, Expectation]

STEP_STAGES = tuple(f"step.{s}" for s in STAGES if s == "loss" or s.startswith(("adam", "params")))
"""What the step that trains returns, in the order of the computation."""


def end_to_end(
    after: State, state: State, images: Images, labels: Labels, *, lr: float
) -> Expectations:
    """Return what a step without stages should make of `state`: loss, moments and parameters.

    The parameters are judged on the moments of `after`, which the step returned: a first gradient
    near zero moves its parameter by the learning rate, whatever its sign, so that no bound on it
    says anything of the update. Both states are in the precision that the step promises.
    """
    local = dict(expectations({}, state, images, labels, lr=lr))
    rounding = Rounding(state.dtype)
    expected = {"step.loss": loss(_logits(local, state), labels, rounding)}
    for name, inherited in _gradient_errors(local, state, images.astype(np.float64)).items():
        gradient, own = local[f"grad.{name}"]
        error = inherited + own
        squared = (2 * np.abs(gradient) + error) * error
        for moment, grown in ("m", (1 - reference.B1) * error), ("v", (1 - reference.B2) * squared):
            stage = f"adam.{moment}.{name}"
            expected[f"step.{stage}"] = local[stage].grown(grown)
        arrays = (state.params[name], after.adam_m[name], after.adam_v[name])
        p, m, v = (array.astype(np.float64) for array in arrays)
        expected[f"step.params.{name}"] = rounding.of_update(p, m, v, state.step + 1, lr)
    return {stage: expected[stage] for stage in STEP_STAGES}


def logits(state: State, images: Images) -> Expectation:
    """Return what a network without stages should make of images, in its state's precision."""
    unused = np.zeros(len(images), np.int64)
    known = expectations({}, state, images, unused, lr=1.0)
    return _logits(dict(itertools.islice(known, STAGES.index("logits") + 1)), state)


def loss(logits: Expectation, labels: Labels, rounding: Rounding) -> Expectation:
    """Return what the mean cross-entropy of such logits should be.

    A logarithm of a probability moves by twice the largest error of its logits at most.
    """
    return rounding.of_loss(logits.value, labels).grown(2 * logits.bound.max(axis=1).mean())


def probabilities(logits: Expectation, rounding: Rounding) -> Expectation:
    """Return what the softmax of such logits should be."""
    p, largest = rounding.of_probabilities(logits.value), logits.bound.max(axis=1, keepdims=True)
    return p.grown(p.value * np.expm1(2 * largest))


def _logits(local: Expectations, state: State) -> Expectation:
    """Return the logits with the errors that they inherit from the convolution."""
    flatten = reference.flatten(reference.pool(local["conv1"].bound))
    return local["logits"].grown(flatten @ np.abs(state.params["fc1.weight"].astype(np.float64)).T)


def _gradient_errors(local: Expectations, state: State, images: Array) -> dict[str, Array]:
    """Return the errors of the gradients that come from those of the stages before them."""
    weight = state.params["fc1.weight"].astype(np.float64)
    logits = _logits(local, state)
    largest = logits.bound.max(axis=1, keepdims=True)
    moved = np.exp(reference.log_softmax(logits.value)) * np.expm1(2 * largest) / len(images)
    g, error = local["grad.logits"].value, local["grad.logits"].bound + moved
    flatten = reference.flatten(reference.pool(local["conv1"].bound))
    pooled = map(reference.pooled_gradient, (g, error), (weight, np.abs(weight)))
    conv1 = _conv1_gradient_errors(Expectation(*pooled), local["conv1"], images)
    fc1_weight = error.T @ (local["flatten"].value + flatten) + np.abs(g).T @ flatten
    return dict(zip(PARAMETERS, (*conv1, fc1_weight, error.sum(axis=0)), strict=True))


def _conv1_gradient_errors(
    pooled: Expectation, conv1: Expectation, images: Array
) -> tuple[Array, Array]:
    """Return the errors of conv1's gradients from those of ∂L/∂pool and of conv1's output.

    Where an error of conv1 changes which position of a pooling window is passed, the gradient is
    off by the spread of the pixels under the positions that the errors leave possible.
    """
    low, high = (reference.windows(conv1.value + e) for e in (-conv1.bound, conv1.bound))
    surest = low.max(axis=-1, keepdims=True)
    possible, perhaps_none = (high > 0) & (high >= surest), surest <= 0
    patches = reference.patches(images).reshape(-1, 13, 2, 13, 2, 9)
    patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 13, 13, 4, 9)
    weight, bias = np.zeros((16, 9)), np.zeros(16)
    for o in range(16):
        candidates, none = possible[:, o, ..., None], perhaps_none[:, o]
        top = np.where(candidates, patches, -np.inf).max(axis=3)
        bottom = np.where(candidates, patches, np.inf).min(axis=3)
        top = np.where(none, np.maximum(top, 0), top)
        bottom = np.where(none, np.minimum(bottom, 0), bottom)
        size, error = np.abs(pooled.value[:, o, ..., None]), pooled.bound[:, o, ..., None]
        largest = np.maximum(np.abs(top), np.abs(bottom))
        weight[o] = (size * (top - bottom) + error * largest).sum(axis=(0, 1, 2))
        passed = possible[:, o].any(axis=-1)
        bias[o] = (size[..., 0] * (passed & none[..., 0]) + error[..., 0] * passed).sum()
    return weight.reshape(16, 1, 3, 3), bias
