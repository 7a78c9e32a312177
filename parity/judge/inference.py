"""Are evaluation and prediction right? A subject's own, against the oracle."""

import numpy as np

from parity.contract.data.datasets import Split, pixels
from parity.contract.recipe import Recipe
from parity.contract.state import State
from parity.judge.compare import EvidenceError, Judged, attempt, compare, merge
from parity.judge.states import tied_state
from parity.subjects.subject import Subject
from parity.truth import propagation
from parity.truth.rounding import Expectation, Rounding

EVALUATION = ("evaluate.loss", "evaluate.confusion")
"""Mean test loss; number of images by label and predicted class."""
INFERENCE_STAGES = (*EVALUATION, "predict")

IMAGES = 503
"""Two full batches of an evaluation, of 250 images, and a smaller one of 3."""
FEW = 3
DIFFERENT = 41
"""Images that take turns in IMAGES, so that the oracle has less to do."""


def judge_inference(subject: Subject, recipe: Recipe, split: Split) -> Judged:
    """Judge `evaluate` on many images and on a few, and `predict`.

    The classes of the state are decided by near-ties; which side of one rounding takes is judged
    where float32 can tell. Of a few images' mean loss, half precision shows.
    """
    state, judged = tied_state(recipe.seed, recipe.dtype), {}
    turns = np.arange(IMAGES) % min(DIFFERENT, len(split))
    images, labels = split.images[turns], split.labels[turns]
    few = propagation.logits(state, pixels(images[:DIFFERENT], recipe.dtype))
    logits = Expectation(few.value[turns], few.bound[turns])
    try:
        for size in (IMAGES, FEW):
            part = Split(images[:size], labels[:size])
            got = attempt(EVALUATION[0], lambda part=part: subject.evaluate(recipe, state, part))
            loss, confusion = _figures(Expectation(*(x[:size] for x in logits)), part, state)
            merge(judged, compare(EVALUATION[0], np.asarray(got.loss), loss))
            merge(judged, compare(EVALUATION[1], got.confusion, confusion))
        p = attempt("predict", lambda: subject.predict(recipe, state, images))
        expected = propagation.probabilities(logits, Rounding(state.dtype))
        merge(judged, compare("predict", np.asarray(p), expected))
    except EvidenceError as error:
        merge(judged, error.comparison)
    return judged


def expected_figures(state: State, split: Split) -> tuple[Expectation, Expectation]:
    """Return what mean loss and confusion matrix of a split should be."""
    dtype = "float64" if state.dtype == np.float64 else "float32"
    logits = propagation.logits(state, pixels(split.images, dtype))
    return _figures(logits, split, state)


def _figures(logits: Expectation, split: Split, state: State) -> tuple[Expectation, Expectation]:
    """Return loss and confusion; an image may count for any class whose logit may be largest."""
    loss = propagation.loss(logits, split.labels, Rounding(state.dtype))
    surest = (logits.value - logits.bound).max(axis=1, keepdims=True)
    possible = logits.value + logits.bound >= surest
    unsure = possible & (possible.sum(axis=1, keepdims=True) > 1)
    confusion, bound = np.zeros((10, 10), np.int64), np.zeros((10, 10), np.int64)
    np.add.at(confusion, (split.labels, logits.value.argmax(axis=1)), 1)
    np.add.at(bound, split.labels, unsure)
    return loss, Expectation(confusion, bound)
