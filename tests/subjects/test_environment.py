"""What a result was computed with, and what of it stands out."""

import dataclasses
import json
import os
import platform

import numpy as np
import pytest

from parity.contract.data.datasets import digits
from parity.contract.recipe import Recipe
from parity.contract.state import initial_state
from parity.subjects.environment import environment, environment_lines, inputs, remarks
from parity.subjects.subject import Subject


def test_it_has_the_machine_and_an_entry_for_each_backend_as_json() -> None:
    names = ["numpy", "jax:jit", "torch:eager", "jax:eager"]
    facts = environment([Subject.parse(name) for name in names], Recipe(device="cpu"))
    assert facts["python"] == platform.python_version()
    assert facts["cores"] == os.cpu_count()
    assert facts["processor"]
    assert [name for name, value in facts.items() if isinstance(value, dict)] == ["jax", "torch"]
    assert facts["jax"]["device"] == "cpu"
    assert json.loads(json.dumps(facts)) == facts


def test_only_the_backends_of_the_subjects_are_asked() -> None:
    facts = environment([Subject.parse("numpy")], Recipe())
    assert not [name for name, value in facts.items() if isinstance(value, dict)]


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_variable_that_changes_the_computation_is_listed_where_it_is_set(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects, recipe = [Subject(backend)], Recipe(device="cpu")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert "OMP_NUM_THREADS" not in environment(subjects, recipe)[backend]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert environment(subjects, recipe)[backend]["OMP_NUM_THREADS"] == "1"


def test_its_lines_are_aligned_and_a_backends_stand_below_its_name() -> None:
    facts = {"python": "3.14", "torch": {"TF32 in cuDNN": False, "threads": 2, "oneDNN": True}}
    assert environment_lines(facts) == [
        "python           3.14",
        "torch:",
        "  TF32 in cuDNN  off",
        "  threads        2",
        "  oneDNN         on",
    ]


def test_inputs_have_the_same_digest_only_if_they_are_the_same() -> None:
    dataset, state = digits(), initial_state(0)
    order = [np.array([1, 2]), np.array([3])]
    right = inputs(dataset, state, order)
    swapped = [array.astype(array.dtype.newbyteorder()) for array in order]
    assert inputs(dataset, state, swapped) == right
    for key, other in (
        ("data set", (dataset.first(1436), state, order)),
        ("initial state", (dataset, initial_state(1), order)),
        ("initial state", (dataset, initial_state(0, "float64"), order)),
        ("initial state", (dataset, dataclasses.replace(state, step=1), order)),
        ("batches", (dataset, state, [np.array([1]), np.array([2, 3])])),
        ("batches", (dataset, state, order[::-1])),
    ):
        changed = inputs(*other)
        assert {name for name in right if changed[name] != right[name]} == {key}


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"TF32 in cuDNN": True}, "x: TF32 in cuDNN is on, should be off"),
        ({"cuDNN deterministic": False}, "x: cuDNN deterministic is off, should be on"),
        ({"float32 matmul precision": "high"}, "is high, should be highest"),
        ({"64-bit types": True}, "x: 64-bit types is on, should be off"),
        ({"jaxlib": "0.10.2"}, "jaxlib 0.10.2: wrong jitted results"),
    ],
)
def test_what_stands_out_is_remarked_upon(facts: dict[str, object], said: str) -> None:
    [line] = remarks({"python": "3.14", "x": facts}, "float32")
    assert said in line


def test_nothing_is_said_of_what_is_as_it_should_be() -> None:
    good = {
        "torch": "2.13.0",
        "jaxlib": "0.10.3",
        "TF32 in cuDNN": False,
        "float32 matmul precision": "highest",
        "64-bit types": True,
    }
    assert remarks({"python": "3.14", "x": good}, "float64") == []
