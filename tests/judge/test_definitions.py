"""A mistake in what the subjects share makes them differ in nothing, and is seen all the same."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from parity.contract import batches as contract_batches
from parity.contract import state as parameters
from parity.contract.recipe import DType, Recipe
from parity.contract.state import State
from parity.judge import definitions
from parity.judge.check import check
from parity.judge.compare import EvidenceError
from parity.judge.definitions import INPUTS, judge_initial, judge_order, judge_pixels, judge_shared

RECIPE = Recipe(dataset="digits")


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1437, 5000])
def test_the_contract_as_it_is_agrees(batch_size: int) -> None:
    judged = judge_shared(Recipe(dataset="digits", batch_size=batch_size), 1437)
    assert {stage: str(c) for stage, c in judged.items() if not c.agrees} == {}
    assert set(judged) == {"data", "init"}


def test_right_orders_and_weights_are_not_called_wrong() -> None:
    for seed in range(100):
        judge_order(Recipe(seed=seed), 1437)
        judge_initial(seed)


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
    yield from list(contract_batches.batches(**options))[:-1]


def never_shuffled(**options: Any) -> Iterator[np.ndarray]:
    yield from contract_batches.batches(**options | {"epoch": 1})


def with_replacement(**options: Any) -> Iterator[np.ndarray]:
    for batch in contract_batches.batches(**options):
        yield batch // 2


def another_seed_rotated(**options: Any) -> Iterator[np.ndarray]:
    order = np.concatenate(list(contract_batches.batches(**options | {"seed": 0})))
    order = np.roll(order, options["seed"])
    for start in range(0, len(order), options["batch_size"]):
        yield order[start : start + options["batch_size"]]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (last_dropped, "22 batches of 64 at most, 1408 of 1437"),
        (never_shuffled, "epoch 2, 1,437 of 1,437 examples are where they are in that of seed"),
        (with_replacement, "every example once"),
        (another_seed_rotated, "seed 1, epoch 1, 1,435 of 1,437 examples follow each other"),
    ],
)
def test_another_order_is_seen(
    wrong: Callable[..., Iterator[np.ndarray]], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definitions, "batches", wrong)
    with pytest.raises(EvidenceError, match=re.escape(said)):
        judge_order(RECIPE, 1437)


@pytest.mark.parametrize("moved", ["within windows of 5,000", "in blocks of 64"])
def test_an_order_that_is_shuffled_in_part_is_seen(moved: str) -> None:
    stream, n = np.random.RandomState(0), 60_000
    if moved.startswith("within"):
        partly = np.argsort(np.arange(n) + stream.uniform(0, 5000, n))
    else:
        blocks = stream.permutation(n // 64)
        partly = np.concatenate([64 * block + stream.permutation(64) for block in blocks])
    with pytest.raises(EvidenceError, match="is not shuffled"):
        definitions._require_random(partly, "in it", "in the files")


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("factor", [0, 0.1, 1.2])
def test_weights_drawn_otherwise_are_seen(
    name: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(seed: int, dtype: DType = "float32") -> State:
        state = parameters.initial_state(seed, dtype)
        state.params[name][:] *= factor
        return state

    monkeypatch.setattr(definitions, "initial_state", wrong)
    with pytest.raises(EvidenceError, match=name):
        judge_initial(0)


def test_an_adam_constant_that_both_backends_share_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import jaxcnn.optim
    import torchcnn.optim

    for module in (torchcnn.optim, jaxcnn.optim):
        monkeypatch.setattr(module, "ADAM_B2", 0.998)
    verdict = check(dataset="digits", device="cpu", a="torch:eager", b="jax:eager")
    assert verdict.first_disagreement is not None
    assert verdict.first_disagreement[1].stage == "adam.v.conv1.weight"
