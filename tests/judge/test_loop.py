"""Loops are judged from state to state. That wrong ones are found, test_faults.py shows."""

import pytest

from parity.contract.data.datasets import digits
from parity.contract.errors import DivergenceError, RecipeError
from parity.contract.recipe import DType, Recipe
from parity.contract.run.progress import chunk_size
from parity.judge.loop import FIT_STAGES, STEPS_STAGES, covered, epoch_end, judge_loop, short_epochs
from parity.subjects.subject import Subject

RECIPE = Recipe(dataset="digits", device="cpu", seed=5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["torch:eager", "jax:jit", "jax:jit:fused"])
def test_right_loops_agree(name: str, dtype: DType) -> None:
    subject, recipe = Subject.parse(name), Recipe(**{**vars(RECIPE), "dtype": dtype})
    judged = judge_loop(subject, epoch_end(subject, recipe, digits()))
    assert tuple(judged) == (*STEPS_STAGES, *FIT_STAGES)
    epochs = judge_loop(subject, short_epochs(recipe, digits()))
    judged |= {f"epochs: {stage}": comparison for stage, comparison in epochs.items()}
    assert [str(comparison) for comparison in judged.values() if not comparison.agrees] == []
    assert len(judged) == 8
    assert "`fit` for 10 epochs" in covered(subject, recipe, judged)


@pytest.mark.parametrize("name", ["torch:eager", "jax:jit", "jax:jit:fused"])
def test_an_epochs_end_has_a_full_chunk_and_two_more_calls_beyond_16_bits(name: str) -> None:
    subject = Subject.parse(name)
    training = epoch_end(subject, RECIPE, digits())
    recipe, images = training.recipe, len(training.data.train)
    chunk, size = chunk_size(subject.resolve(recipe)), recipe.batch_size
    assert training.start is not None
    assert (training.start.epoch, training.start.batch % chunk) == (recipe.epochs, 0)
    assert images > 2**15 + size
    assert images - (training.start.batch + chunk) * size == size + size // 2


def test_a_loop_that_breaks_down_is_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*args: object, **options: object) -> None:
        raise DivergenceError("the loss of epoch 1 is nan")

    monkeypatch.setattr("torchcnn.fit", diverge, raising=False)
    judged = judge_loop(Subject.parse("torch:eager"), short_epochs(RECIPE, digits()))
    assert str(judged["fit.losses"]) == (
        "fit.losses: is not delivered: DivergenceError: the loss of epoch 1 is nan"
    )


def test_the_oracle_has_no_loop() -> None:
    oracle = Subject.parse("numpy")
    assert oracle.can("evaluate", "predict")
    assert not oracle.can("fit")
    with pytest.raises(RecipeError, match=r"numpy: .* lacks `fit`"):
        oracle.fit(RECIPE, digits())
