"""A mistake in what the subjects share makes them differ in nothing, and is seen all the same."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from parity.contract import batches as randomness
from parity.contract import state as parameters
from parity.contract.recipe import Recipe
from parity.contract.state import State
from parity.judge import definitions
from parity.judge.check import check
from parity.judge.definitions import INPUTS, judge_initial, judge_order, judge_pixels

RECIPE = Recipe(dataset="digits")


def test_the_contract_as_it_is_agrees() -> None:
    assert judge_pixels().agrees
    assert all(judge_initial(seed).agrees for seed in range(100))
    for batch_size in (1, 7, 64, 1437, 5000):
        order = judge_order(Recipe(dataset="digits", batch_size=batch_size), 1437)
        assert order.agrees
        assert order.elements == 1437


def by_256(images: np.ndarray, dtype: str = "float32") -> np.ndarray:
    return np.divide(images[:, None], np.float32(256), dtype=np.float32).astype(dtype)


def reciprocal(images: np.ndarray, dtype: str = "float32") -> np.ndarray:
    return (images[:, None] * np.float32(1 / 255)).astype(dtype)


@pytest.mark.parametrize("wrong", [by_256, reciprocal])
def test_pixels_scaled_otherwise_are_seen(
    wrong: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definitions, "pixels", wrong)
    assert not judge_pixels().agrees


def last_dropped(**options: Any) -> Iterator[np.ndarray]:
    yield from list(randomness.batches(**options))[:-1]


def never_shuffled(**options: Any) -> Iterator[np.ndarray]:
    yield from randomness.batches(**options | {"epoch": 1})


def with_replacement(**options: Any) -> Iterator[np.ndarray]:
    for batch in randomness.batches(**options):
        yield batch // 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (last_dropped, "22 batches of 64 at most, 1408 of 1437"),
        (never_shuffled, "the same order"),
        (with_replacement, "every example once"),
    ],
)
def test_another_order_is_seen(
    wrong: Callable[..., Iterator[np.ndarray]], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definitions, "batches", wrong)
    assert said in str(judge_order(RECIPE, 1437))


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("factor", [0, 0.1, 1.2])
def test_weights_drawn_otherwise_are_seen(
    name: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(seed: int) -> State:
        state = parameters.initial_state(seed)
        state.params[name][:] *= factor
        return state

    monkeypatch.setattr(definitions, "initial_state", wrong)
    assert name in str(judge_initial(0))


def test_an_adam_constant_that_both_backends_share_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import jaxcnn.optim
    import torchcnn.optim

    for module in (torchcnn.optim, jaxcnn.optim):
        monkeypatch.setattr(module, "ADAM_B2", 0.998)
    verdict = check(dataset="digits", device="cpu", a="torch:eager", b="jax:eager")
    assert verdict.first_disagreement is not None
    assert verdict.first_disagreement[1].stage == "adam.v.conv1.weight"
