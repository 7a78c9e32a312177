"""A subject of several processes: judged as one, and right; its mistakes are found."""

import dataclasses

import pytest

from parity.contract.data.datasets import digits
from parity.contract.errors import RecipeError
from parity.contract.recipe import Recipe
from parity.contract.state import initial_state
from parity.judge.check import judge
from parity.judge.compare import first_wrong
from parity.judge.trajectory import train
from parity.subjects.faults import CONTRACT, catalogue, planted
from parity.subjects.subject import Subject
from parity.subjects.workers import close_workers

RECIPE = Recipe(dataset="digits", device="cpu")


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_running() -> object:
    yield
    close_workers()


@pytest.mark.parametrize("text", ["torch:eager@0", "torch:eager@x", "numpy@2", "jax:jit@2@2"])
def test_what_cannot_be_processes_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="subject"):
        Subject.parse(text)


def test_a_subject_of_several_processes_has_its_name() -> None:
    subject = Subject.parse("jax:jit:fused@3")
    assert (str(subject), subject.processes) == ("jax:jit:fused@3", 3)
    assert str(Subject.parse("jax:jit@1")) == "jax:jit"


@pytest.mark.parametrize("text", ["torch:eager@3", "jax:jit@2"])
def test_several_processes_take_the_step_of_one(text: str) -> None:
    subject, data = Subject.parse(text), digits()
    judged = judge(subject, RECIPE, data, data, initial_state(0))
    assert first_wrong(judged) is None
    assert {"step.loss", "evaluate.confusion", "fit.state"} <= set(judged)


def test_whole_trainings_of_one_and_of_several_stay_together() -> None:
    recipe = dataclasses.replace(RECIPE, dtype="float64", limit=131)
    result = train(a="torch:eager@3", b="torch:eager", recipe=recipe, steps=6)
    assert result.agrees
    assert result.float64.apart[-1] < 1e-12


@pytest.mark.parametrize("name", ["mean of the processes' means", "every process writes"])
def test_a_mistake_of_several_processes_is_found_at_its_stage(name: str) -> None:
    fault = next(fault for fault in catalogue() if fault.name == name)
    where = "torch" if "torch" in fault.edits else CONTRACT
    data = digits()
    with planted(where, fault.edits[where]):
        wrong = first_wrong(
            judge(Subject.parse("torch:eager@2"), RECIPE, data, data, initial_state(0))
        )
    assert wrong is not None
    assert wrong.stage.startswith(fault.stage), str(wrong)
