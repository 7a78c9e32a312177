"""What the processes of a training know of each other; here they are threads."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.contract.errors import ProcessError
from parity.contract.group import ALONE, Group, facts, shares
from parity.contract.recipe import Recipe


def together(count: int, act: Callable[[Group], Any]) -> list[Any]:
    """Return what each of so many processes does."""
    rows: list[np.ndarray] = [np.zeros(0, np.uint8)] * count
    barrier = threading.Barrier(count, timeout=10)

    def member(index: int) -> Any:
        def exchange(own: np.ndarray) -> np.ndarray:
            barrier.wait()
            rows[index] = own
            barrier.wait()
            return np.stack(rows)

        return act(Group(index=index, count=count, exchange=exchange))

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(member, range(count)))


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 3))
def test_each_image_of_a_batch_is_in_one_share_and_counts_once(
    count: int, batch: int, steps: int
) -> None:
    order = np.random.RandomState(batch).permutation(steps * batch).reshape(steps, batch)
    columns, weights = shares(order, count)
    assert columns.shape == (steps, len(weights))
    assert len(weights) == count * -(-batch // count)
    for row, own in zip(order, columns, strict=True):
        assert own[weights == 1].tolist() == row.tolist()
        assert set(own) == set(row)
    sizes = weights.reshape(count, -1).sum(axis=1)
    assert sizes.max() - sizes.min() <= 1


def test_what_is_gathered_may_be_of_any_length() -> None:
    assert (
        together(3, lambda group: group.gather("x" * 10 ** (group.index + 1)))
        == [["x" * 10, "x" * 100, "x" * 1000]] * 3
    )
    assert ALONE.gather(1) == [1]


def test_process_0_prepares_what_the_others_find() -> None:
    prepared = []

    def load(group: Group) -> int:
        def function() -> int:
            prepared.append(group.index)
            return prepared[0]

        return group.in_turn(function)

    assert together(3, load) == [0, 0, 0]
    assert together(2, lambda group: group.first(lambda: group.index)) == [0, 0]


def test_another_recipe_is_refused_by_name_in_every_process() -> None:
    def require(group: Group) -> str:
        recipe = Recipe(lr=0.01 if group.index == 1 else 0.001)
        with pytest.raises(ProcessError) as error:
            group.require_same(lambda: facts(recipe, "torchcnn", {"torch": "2"}))
        return str(error.value)

    said = together(3, require)
    assert set(said) == {
        "process 1 of 3 has lr 0.01, process 0 has 0.001; give all of them the same"
    }


def test_another_source_is_another_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (facts(Recipe(), package, {})["source code"] for package in ("torchcnn", "jaxcnn"))
    assert a != b
