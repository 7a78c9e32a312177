"""The oracle against definitions and finite differences, not against the code it judges."""

import numpy as np
import pytest

from parity.contract.state import initial_state
from parity.truth import reference

STREAM = np.random.RandomState(0)
IMAGES = STREAM.uniform(size=(3, 1, 28, 28))
LABELS = np.array([3, 0, 9])
PARAMS = initial_state(0, "float64").params


def forward(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    conv1 = reference.conv1(IMAGES, params["conv1.weight"], params["conv1.bias"])
    flatten = reference.flatten(reference.pool(reference.relu(conv1)))
    logits = reference.fc1(flatten, params["fc1.weight"], params["fc1.bias"])
    return {"conv1": conv1, "flatten": flatten, "logits": logits}


def gradients() -> dict[str, np.ndarray]:
    values = forward(PARAMS)
    g = reference.logits_gradient(values["logits"], LABELS)
    fc1 = reference.fc1_gradients(g, values["flatten"])
    passed = reference.passed(values["conv1"])
    pooled = reference.pooled_gradient(g, PARAMS["fc1.weight"])
    conv1 = reference.conv1_gradients(pooled, passed, IMAGES)
    return {
        "fc1.weight": fc1[0],
        "fc1.bias": fc1[1],
        "conv1.weight": conv1[0],
        "conv1.bias": conv1[1],
    }


@pytest.mark.parametrize("name", PARAMS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """Central differences err by h² and by roundoff/h: with h = 1e-6 about 1e-10 in all."""
    gradient, h = gradients()[name], 1e-6
    for index in STREAM.choice(gradient.size, size=min(10, gradient.size), replace=False):
        losses = []
        for sign in (1, -1):
            moved = PARAMS[name].copy()
            moved.flat[index] += sign * h
            losses.append(reference.loss(forward({**PARAMS, name: moved})["logits"], LABELS))
        assert (losses[0] - losses[1]) / (2 * h) == pytest.approx(
            gradient.flat[index], rel=1e-6, abs=1e-9
        )


def test_a_convolution_is_a_correlation_without_padding() -> None:
    weight, bias = PARAMS["conv1.weight"], PARAMS["conv1.bias"]
    got = reference.conv1(IMAGES, weight, bias)
    for b, o, h, w in [(0, 0, 0, 0), (2, 15, 25, 25), (1, 7, 3, 20)]:
        expected = bias[o] + sum(
            weight[o, 0, i, j] * IMAGES[b, 0, h + i, w + j] for i in range(3) for j in range(3)
        )
        assert got[b, o, h, w] == pytest.approx(expected, rel=1e-14)


def test_pooling_takes_the_largest_and_the_gradient_goes_to_the_first_of_equals() -> None:
    maps = np.full((1, 16, 26, 26), -1.0)
    maps[0, 0, :2, :2] = [[2, 5], [5, 1]]
    maps[0, 1, 24:, 24:] = [[0, 0], [0, 3]]
    pooled = reference.pool(maps)
    assert (pooled[0, 0, 0, 0], pooled[0, 1, 12, 12], pooled[0, 2, 0, 0]) == (5, 3, -1)
    passed = reference.passed(maps)
    assert set(zip(*map(list, np.nonzero(passed)), strict=True)) == {(0, 0, 0, 1), (0, 1, 25, 25)}


def test_flattening_goes_channel_by_channel() -> None:
    x = STREAM.uniform(size=(2, 16, 13, 13))
    assert reference.flatten(x)[1, 169 * 5 + 13 * 2 + 7] == x[1, 5, 2, 7]


def test_the_loss_is_minus_the_log_of_the_labels_probability() -> None:
    logits = np.array([[np.log(7.0)] + [0.0] * 9])
    assert reference.loss(logits, np.array([0])) == pytest.approx(np.log(16 / 7), rel=1e-14)
    huge = np.array([[1e4] + [0.0] * 9])
    assert reference.loss(huge, np.array([1])) == pytest.approx(1e4, rel=1e-14)
