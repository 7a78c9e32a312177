"""A training goes from one framework to the other and back, in the middle of an epoch."""

import numpy as np
import pytest

from parity.contract.batches import batches
from parity.contract.data.datasets import digits, pixels
from parity.contract.recipe import Recipe
from parity.contract.state import initial_state
from parity.judge.states import numbers
from parity.subjects.subject import Subject
from tests.conftest import COMPILES, step

RECIPE = Recipe(dataset="digits", device="cpu", batch_size=100, dtype="float64")
SPLIT = digits().train


def train(subjects: list[Subject], boundaries: list[int]) -> tuple[np.ndarray, list[float]]:
    """Train an epoch of 15 steps; at each boundary the next subject takes over the state."""
    order = batches(seed=0, epoch=1, examples=len(SPLIT), batch_size=RECIPE.batch_size)
    steps = [(pixels(SPLIT.images[batch], "float64"), SPLIT.labels[batch]) for batch in order]
    state, losses = initial_state(0, "float64"), []
    edges = [0, *boundaries, len(steps)]
    for subject, start, end in zip(subjects, edges[:-1], edges[1:], strict=True):
        with subject.session(RECIPE, state) as session:
            losses += [step(session, *batch) for batch in steps[start:end]]
            state = session.export()
    return numbers(state), losses


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("torch:eager", "jax:jit"),
        ("jax:jit", "torch:eager"),
        pytest.param("jax:eager", "torch:jit", marks=COMPILES),
    ],
)
def test_a_training_that_switches_and_comes_back_is_the_one_that_never_did(
    first: str, second: str
) -> None:
    a, b = Subject.parse(first), Subject.parse(second)
    switched, switched_losses = train([a, b, a], [4, 9])
    stayed, losses = train([a], [])
    assert len(losses) == len(switched_losses) == 15
    assert np.abs(switched - stayed).max() <= 1e-12
    assert np.abs(np.subtract(switched_losses, losses)).max() <= 1e-12
