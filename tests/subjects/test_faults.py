"""The catalogue: each mistake fits the source, is found at its stage, and leaves nothing behind."""

import importlib
import sys

import pytest

import torchcnn.model
from parity.contract.data.datasets import digits
from parity.contract.recipe import Recipe
from parity.contract.state import initial_state
from parity.judge.check import judge
from parity.judge.steps import Judged
from parity.subjects.faults import Edit, Fault, adam_by_hand, catalogue, planted
from parity.subjects.subject import BACKENDS, Subject

FAULTS = catalogue()
SUBJECTS = {"torch": Subject.parse("torch:eager"), "jax": Subject.parse("jax:jit")}
PLANTED = [(fault, backend) for fault in FAULTS for backend in fault.edits]
DIGITS = digits()


def judged(subject: Subject, recipe: Recipe) -> Judged:
    state = initial_state(recipe.seed, recipe.dtype)
    return judge(subject, recipe, subject.load_dataset(recipe), DIGITS, state)


def test_the_catalogue_has_mistakes_of_every_kind() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40
    kinds = {fault.stage.split(".")[0] for fault in FAULTS}
    steps = {"conv1", "relu", "pool", "flatten", "logits", "loss", "grad", "adam", "params"}
    assert kinds == {"data", "init", "step", "fit"} | steps
    for fault in FAULTS:
        assert set(fault.edits) == set(BACKENDS) or fault.only


@pytest.mark.parametrize(
    ("fault", "backend"), PLANTED, ids=[f"{fault.name}, {backend}" for fault, backend in PLANTED]
)
def test_a_mistake_is_found_at_its_stage(fault: Fault, backend: str) -> None:
    recipe = Recipe(dataset="digits", device="cpu", batch_size=16, dtype=fault.dtype)
    with planted(backend, fault.edits[backend]):
        found = judged(SUBJECTS[backend], recipe)
    first = next((comparison for comparison in found.values() if not comparison.agrees), None)
    assert first is not None
    assert first.stage.startswith(fault.stage), str(first)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_adam_by_hand_that_is_right_is_no_mistake(backend: str) -> None:
    with planted(backend, adam_by_hand()[backend]):
        found = judged(SUBJECTS[backend], Recipe(dataset="digits", device="cpu", batch_size=16))
    assert [str(comparison) for comparison in found.values() if not comparison.agrees] == []


def test_after_the_block_the_backend_is_the_one_from_before() -> None:
    edit = Edit(module="model", old="class CNN(", new="class Planted(")
    with pytest.raises(ImportError), planted("torch", [edit]):
        importlib.import_module("torchcnn.state")
    assert sys.modules["torchcnn.model"] is torchcnn.model
    assert importlib.import_module("torchcnn.model").CNN is torchcnn.model.CNN


def test_an_edit_that_does_not_fit_the_source_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="0 places read 'no such text'"),
        planted("jax", [Edit(module="model", old="no such text", new="")]),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"model: \d+ places read 'conv1'"),
        planted("torch", [Edit(module="model", old="conv1", new="")]),
    ):
        pass
