"""A training loop is judged by what it reports. That wrong ones are found, test_faults.py shows."""

import pytest

from parity.contract.data.datasets import digits
from parity.contract.errors import DivergenceError, RecipeError
from parity.contract.recipe import Recipe
from parity.judge.loop import FIT_STAGES, judge_fit
from parity.subjects.subject import Subject

RECIPE = Recipe(dataset="digits", device="cpu", seed=5)


@pytest.mark.parametrize("subject", ["torch:eager", "jax:eager", "jax:jit"])
def test_the_loops_are_the_loop_by_hand(subject: str) -> None:
    judged = judge_fit(Subject.parse(subject), RECIPE, digits())
    assert tuple(judged) == FIT_STAGES
    assert [str(comparison) for comparison in judged.values() if not comparison.agrees] == []


def test_a_loop_that_breaks_down_is_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*args: object, **options: object) -> None:
        raise DivergenceError("the loss of epoch 1 is nan")

    monkeypatch.setattr("torchcnn.fit", diverge, raising=False)
    judged = judge_fit(Subject.parse("torch:eager"), RECIPE, digits())
    assert str(judged["fit.losses"]) == (
        "fit.losses: is not delivered: DivergenceError: the loss of epoch 1 is nan"
    )


def test_the_oracle_has_no_loop() -> None:
    with pytest.raises(RecipeError, match="numpy has no training loop"):
        Subject.parse("numpy").fit(RECIPE, digits())
