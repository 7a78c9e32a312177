"""What is timed computes what it should, all of it, and counts what is compiled."""

import numpy as np
import pytest

from parity.contract.backend import Backend
from parity.contract.data.datasets import digits, pixels
from parity.contract.recipe import Kernel, Mode, Recipe
from parity.contract.run.progress import chunk_size
from parity.contract.state import initial_state
from parity.subjects.subject import OracleSession

STEPS = 300
"""More than a compiled chunk of any size."""


@pytest.mark.parametrize(
    ("mode", "kernel"), [("eager", "layers"), ("eager", "fused"), ("jit", "fused")]
)
def test_steps_on_one_batch_are_a_training_on_it(
    backend: Backend, mode: Mode, kernel: Kernel
) -> None:
    recipe = Recipe(device="cpu", mode=mode, kernel=kernel, dtype="float64")
    count = STEPS if mode == "jit" else 3
    assert (count > chunk_size(recipe)) is (mode == "jit")
    train, state = digits().train, initial_state(0, "float64")
    images, labels = pixels(train.images[:4], "float64"), train.labels[:4]
    oracle = OracleSession(recipe, state)
    expected = [oracle.step(images, labels) for _ in range(count)]
    with backend.workload(recipe, state, images, labels) as workload:
        losses = workload.steps(count)
        workload.forward(2)
        compiled = workload.programs()
        workload.steps(2)
        workload.forward(1)
        assert workload.programs() == compiled
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert (compiled > 0) is (mode == "jit" or backend.__name__ == "jaxcnn")
