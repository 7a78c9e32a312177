"""The harness takes any backend: one more module with the names of the protocol, one more row."""

import pytest

import parity
from parity.contract.recipe import DType, Recipe
from parity.subjects.subject import BACKENDS
from tests.subjects import toy


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "toy", toy.__name__)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_third_backend_is_checked_without_a_change_to_the_harness(dtype: DType) -> None:
    verdict = parity.check(a="toy:eager", b="torch:eager", dataset="digits", dtype=dtype)
    assert verdict.agrees, str(verdict)
    assert all(comparison is not None for pair in verdict.stages.values() for comparison in pair)


def test_its_training_is_compared_without_an_evaluation_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(toy, "evaluate")
    recipe = Recipe(dataset="digits", device="cpu", limit=100)
    result = parity.train(a="toy:eager", b="numpy", recipe=recipe)
    assert result.agrees, str(result)


def test_its_mistakes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = toy.Session.trace

    def wrong(*args: object) -> object:
        trace = right(*args)  # pyright: ignore[reportArgumentType]
        return {**trace, "logits": trace["logits"][:, ::-1]}

    monkeypatch.setattr(toy.Session, "trace", wrong)
    verdict = parity.check(a="toy:eager", b="numpy", dataset="digits")
    assert "toy:eager first differs at stage logits: element [" in str(verdict)
