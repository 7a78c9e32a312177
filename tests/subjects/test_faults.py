"""The catalogue: each mistake fits the source, is found at its stage, and leaves nothing behind."""

import functools
import importlib
import sys

import pytest

import torchcnn.model
from parity.contract.batches import batch_count
from parity.contract.data.datasets import digits
from parity.contract.recipe import Recipe
from parity.contract.state import initial_state
from parity.judge.check import judge
from parity.judge.compare import Judged
from parity.judge.definitions import judge_shared
from parity.subjects.faults import CONTRACT, TWINS, Edit, Fault, adam_by_hand, catalogue, planted
from parity.subjects.subject import Subject

pytestmark = pytest.mark.wrong_types  # a module imported anew has other classes of the same names

FAULTS = catalogue()
SUBJECTS = {"torch": Subject.parse("torch:eager"), "jax": Subject.parse("jax:eager")}
COMPILED = Subject.parse("jax:jit")
"""For mistakes of the loop, whose thousands of steps take minutes op by op."""
PLANTED = [(fault, backend) for fault in FAULTS for backend in fault.edits if fault.processes == 1]
DIGITS = digits()


@functools.cache
def right_contract(recipe: Recipe) -> Judged:
    return judge_shared(recipe, len(DIGITS.train))


def judged(backend: str, recipe: Recipe, subject: Subject) -> Judged:
    shared = None if backend == CONTRACT else right_contract(recipe)
    state = initial_state(recipe.seed, recipe.dtype)
    return judge(subject, recipe, subject.load_dataset(recipe), DIGITS, state, shared)


def test_the_catalogue_has_mistakes_of_every_kind() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40
    kinds = {fault.stage.split(".")[0] for fault in FAULTS}
    steps = {"conv1", "relu", "pool", "flatten", "logits", "loss", "grad", "adam", "params"}
    loops = {"step", "steps", "evaluate", "predict", "fit"}
    assert kinds == {"data", "init"} | steps | loops
    for fault in FAULTS:
        assert set(fault.edits) in ({*TWINS}, {CONTRACT}) or fault.only


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make no step twice to see that it repeats itself: no planted mistake is about that."""
    monkeypatch.setattr("parity.judge.steps._require_determinism", lambda *_: None)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(
    ("fault", "backend"), PLANTED, ids=[f"{fault.name}, {backend}" for fault, backend in PLANTED]
)
def test_a_mistake_is_found_at_its_stage(fault: Fault, backend: str) -> None:
    whole = fault.stage.startswith(("step", "evaluate", "predict", "fit"))  # some know of 64
    size = Recipe().batch_size if whole else 16
    recipe = Recipe(dataset="digits", device="cpu", dtype=fault.dtype, batch_size=size)
    looped = backend == "jax" and fault.stage.startswith(("steps", "fit"))
    subject = COMPILED if looped else SUBJECTS.get(backend, SUBJECTS["torch"])
    with planted(backend, fault.edits[backend]):
        found = judged(backend, recipe, subject)
    first = next((comparison for comparison in found.values() if not comparison.agrees), None)
    assert first is not None
    assert first.stage.startswith(fault.stage), str(first)


@pytest.mark.parametrize("backend", TWINS)
def test_an_adam_by_hand_that_is_right_is_no_mistake(backend: str) -> None:
    with planted(backend, adam_by_hand()[backend]):
        recipe = Recipe(dataset="digits", device="cpu", batch_size=16)
        found = judged(backend, recipe, SUBJECTS[backend])
    assert [str(comparison) for comparison in found.values() if not comparison.agrees] == []


def test_after_the_block_the_backend_is_the_one_from_before() -> None:
    edit = Edit(module="model", old="class CNN(", new="class Planted(")
    with pytest.raises(ImportError), planted("torch", [edit]):
        importlib.import_module("torchcnn.state")
    assert sys.modules["torchcnn.model"] is torchcnn.model
    assert importlib.import_module("torchcnn.model").CNN is torchcnn.model.CNN


def test_a_mistake_planted_into_the_contract_reaches_who_has_its_function_and_goes() -> None:
    edit = Edit(module="batches", old="-(-examples // batch_size)", new="0")
    assert batch_count(10, 3) == 4
    with planted(CONTRACT, [edit]):
        assert batch_count(10, 3) == 0
    assert batch_count(10, 3) == 4


def test_an_edit_of_the_contract_that_changes_no_function_is_refused() -> None:
    edit = Edit(module="state", old="(10,), fan_in=2704", new="(10,), fan_in=1")
    with pytest.raises(ValueError, match="no function changes"), planted(CONTRACT, [edit]):
        pass


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
