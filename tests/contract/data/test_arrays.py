"""Images and labels in memory are checked, and the twins take and refuse the same ones."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from parity.contract import Dataset, Recipe, Split, initial_state
from parity.contract.backend import Backend
from parity.contract.errors import DataError

pytestmark = pytest.mark.wrong_types

IMAGES = np.random.RandomState(0).randint(0, 256, (12, 28, 28)).astype(np.uint8)
LABELS = np.arange(12) % 10
RECIPE = Recipe(dataset="digits", epochs=1, batch_size=4, device="cpu", mode="eager")

TAKEN = {
    "as in the files": (IMAGES, LABELS.astype(np.uint8)),
    "int64": (IMAGES.astype(np.int64), LABELS),
    "int8 labels, big-endian images": (IMAGES.astype(">u2"), LABELS.astype(np.int8)),
    "lists": (IMAGES.tolist(), LABELS.tolist()),
    "a view of every second": (IMAGES.repeat(2, axis=0)[::2], LABELS.repeat(2)[::-2][::-1]),
}


def changed(label: int) -> np.ndarray:
    return np.where(np.arange(12) == 3, label, LABELS)


REFUSED = {
    "label 10": (IMAGES, changed(10), r"the value 10 at \[3\], expected integers from 0 to 9"),
    "label -1": (IMAGES, changed(-1), r"the value -1 at \[3\], expected integers from 0 to 9"),
    "float labels": (IMAGES, LABELS.astype(float), "labels are float64, .*astype"),
    "truth values": (IMAGES, LABELS > 4, "labels are bool"),
    "one-hot labels": (IMAGES, np.eye(10)[LABELS], r"shape \(12, 10\).*argmax"),
    "columns": (IMAGES, LABELS[:, None], r"shape \(12, 1\), expected \(N,\)"),
    "a label too few": (IMAGES, LABELS[1:], "12 images but 11 labels"),
    "none": (IMAGES[:0], LABELS[:0], "no images"),
    "32×32": (np.zeros((12, 32, 32), np.uint8), LABELS, r"\(12, 32, 32\), expected \(N, 28, 28\)"),
    "channels": (IMAGES[:, None], LABELS, "axis of one channel"),
    "an image": (IMAGES[0], LABELS, r"\(28, 28\), expected"),
    "divided": (IMAGES / np.float32(255), LABELS, r"float32 from 0 to 1.*round\(255 \* images\)"),
    "floats": (IMAGES.astype(float), LABELS, r"images are float64, expected.*round\(images\)"),
    "nan": (np.full((12, 28, 28), np.nan), LABELS, "images are float64, expected"),
    "beyond grey": (IMAGES.astype(int) * 2, LABELS, r"at \[0, 0, \d+\], expected .* 0 to 255"),
    "negative": (IMAGES.astype(int) - 1, LABELS, "the value -1"),
    "names": (np.full((12, 28, 28), "a"), LABELS, "images are <U1"),
    "ragged": ([[1], [1, 2]], LABELS, "images are no array"),
    "nothing": (None, LABELS, r"the shape \(\)"),
}
"""Images, labels, and what is said of them."""


def test_what_is_taken_trains_and_predicts_the_same(backend: Backend) -> None:
    recipe, right = dataclasses.replace(RECIPE, dtype="float64"), Split(IMAGES, LABELS)
    state = backend.fit(recipe, dataset=Dataset("own", right, right)).state
    expected = backend.predict(recipe, state=state, images=IMAGES)
    for images, labels in TAKEN.values():
        own: Any = Split(images, labels)
        assert (own.images.dtype, own.labels.dtype) == (np.uint8, np.int64)
        again = backend.fit(recipe, dataset=Dataset("own", own, own)).state
        for name, value in state.params.items():
            np.testing.assert_allclose(again.params[name], value, rtol=0, atol=1e-12)
        found = backend.evaluate(recipe, state=state, split=own).confusion
        assert np.array_equal(found, backend.evaluate(recipe, state=state, split=right).confusion)
        got = backend.predict(recipe, state=state, images=images)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("images", "labels", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_said(images: Any, labels: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Split(images, labels)


WRONG_IMAGES = [key for key in REFUSED if REFUSED[key][1] is LABELS]


@pytest.mark.parametrize("case", WRONG_IMAGES)
def test_predict_refuses_the_same_images(backend: Backend, case: str) -> None:
    images, _, said = REFUSED[case]
    with pytest.raises(DataError, match=said):
        backend.predict(RECIPE, state=initial_state(0), images=images)


def test_pairs_of_arrays_are_no_data_sets(backend: Backend) -> None:
    pair, split = (IMAGES, LABELS), Split(IMAGES, LABELS)
    own: Any = pair
    with pytest.raises(DataError, match=re.escape("give Split(images, labels)")):
        Dataset("own", own, split)
    with pytest.raises(DataError, match=re.escape("give Split(images, labels)")):
        backend.evaluate(RECIPE, split=own)
    with pytest.raises(DataError, match=re.escape("give Dataset(name, train, test)")):
        backend.fit(RECIPE, dataset=own)
