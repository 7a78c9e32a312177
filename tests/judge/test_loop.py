"""Loops are judged from state to state. That wrong ones are found, test_faults.py shows."""

import pytest

from parity.contract.data.datasets import digits
from parity.contract.errors import DivergenceError, RecipeError
from parity.contract.recipe import DType, Recipe
from parity.judge.loop import Boundaries, covered, judge_boundaries, judge_epochs
from parity.judge.replay import FIT_STAGES, STEPS_STAGES
from parity.subjects.subject import Subject

RECIPE = Recipe(dataset="digits", device="cpu", seed=5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["torch:eager", "jax:jit", "jax:jit:fused"])
def test_right_loops_agree(name: str, dtype: DType) -> None:
    subject, recipe = Subject.parse(name), Recipe(**{**vars(RECIPE), "dtype": dtype})
    judged = judge_boundaries(subject, recipe, digits())
    assert tuple(judged) == (*STEPS_STAGES, *FIT_STAGES)
    judged |= {f"epochs: {s}": c for s, c in judge_epochs(subject, recipe, digits()).items()}
    assert [str(comparison) for comparison in judged.values() if not comparison.agrees] == []
    assert len(judged) == 8
    assert "epochs of `fit`" in covered(subject, recipe, judged)


@pytest.mark.parametrize("batch_size", [1, 64, 100, 5000])
@pytest.mark.parametrize("name", ["torch:eager", "jax:jit"])
def test_an_epochs_end_has_a_full_chunk_and_two_more_calls_beyond_16_bits(
    name: str, batch_size: int
) -> None:
    at = Boundaries.of(
        Subject.parse(name), Recipe(dataset="digits", device="cpu", batch_size=batch_size)
    )
    assert at.images > 2**15 + batch_size
    assert at.done % at.chunk == 0
    assert at.images - (at.done + at.chunk) * batch_size == batch_size + batch_size // 2
    assert (at.start.epoch, at.start.batch) == (at.recipe.epochs, at.done)


def test_a_loop_that_breaks_down_is_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*args: object, **options: object) -> None:
        raise DivergenceError("the loss of epoch 1 is nan")

    monkeypatch.setattr("torchcnn.fit", diverge, raising=False)
    judged = judge_epochs(Subject.parse("torch:eager"), RECIPE, digits())
    assert str(judged["fit.losses"]) == (
        "fit.losses: is not delivered: DivergenceError: the loss of epoch 1 is nan"
    )


def test_the_oracle_has_no_loop() -> None:
    oracle = Subject.parse("numpy")
    assert oracle.can("evaluate", "predict")
    assert not oracle.can("fit")
    with pytest.raises(RecipeError, match=r"numpy has no training loop: .* lacks `fit`"):
        oracle.fit(RECIPE, digits())
