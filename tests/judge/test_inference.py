"""Evaluation and prediction: right ones agree; what is easily overlooked is seen."""

import numpy as np
import pytest

from parity.contract.data.datasets import digits, pixels
from parity.contract.recipe import Recipe
from parity.contract.run.history import Evaluation
from parity.judge.inference import INFERENCE_STAGES, judge_inference
from parity.judge.states import tied_state
from parity.subjects.subject import Subject
from parity.truth import propagation

RECIPE = Recipe(dataset="digits", device="cpu")


@pytest.mark.parametrize("name", ["numpy", "torch:eager:fused", "jax:jit"])
def test_right_ones_agree(name: str) -> None:
    judged = judge_inference(Subject.parse(name), RECIPE, digits().train)
    assert tuple(judged) == INFERENCE_STAGES
    assert [str(comparison) for comparison in judged.values() if not comparison.agrees] == []


@pytest.mark.parametrize("seed", range(5))
def test_half_precision_takes_other_classes_and_float32_tells_nearly_all(seed: int) -> None:
    images = pixels(digits().train.images[:100])
    logits = propagation.logits(tied_state(seed, "float32"), images)
    right, half = (z.argmax(axis=1) for z in (logits.value, logits.value.astype(np.float16)))
    assert (right != half).mean() > 0.02
    first, second = np.sort(logits.value, axis=1)[:, [-1, -2]].T
    assert (first - second > 2 * logits.bound.max(axis=1)).mean() > 0.9


def test_a_confusion_with_two_images_exchanged_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Subject.evaluate

    def wrong(*args: object) -> Evaluation:
        got = right(*args)  # pyright: ignore[reportArgumentType]
        confusion = got.confusion.copy()
        rows, columns = np.nonzero(confusion)
        confusion[rows[0], columns[0]] -= 1
        confusion[rows[0], (columns[0] + 5) % 10] += 1
        return Evaluation(loss=got.loss, confusion=confusion)

    monkeypatch.setattr(Subject, "evaluate", wrong)
    judged = judge_inference(Subject.parse("numpy"), RECIPE, digits().train)
    assert [c.stage for c in judged.values() if not c.agrees] == ["evaluate.confusion"]
