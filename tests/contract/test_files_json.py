"""Results as JSON: every class by one rule."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from parity.contract.files import json_values, to_json
from parity.contract.recipe import Recipe
from parity.judge.compare import Comparison


class Both(NamedTuple):
    a: Any
    b: Any


@dataclass(frozen=True)
class Found:
    sides: Both
    arrays: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def passed(self) -> bool:
        return self.sides.a == self.sides.b

    def __str__(self) -> str:
        return "they differ"


def test_a_result_is_its_verdict_its_fields_and_its_properties() -> None:
    found = Found(Both(1, [2.5]), {"weights": np.zeros(3)})
    assert to_json(found) == {
        "schema": 2,
        "verdict": "they differ",
        "sides": {"a": 1, "b": [2.5]},
        "passed": False,
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        ([1.0, -math.inf], [1.0, None]),
        (np.array([[1.0, math.inf]]), [[1.0, None]]),
        (np.float32(0.5), 0.5),
        (Path("a/b"), "a/b"),
        ({64: (1, 2)}, {"64": [1, 2]}),
        (Recipe(seed=3), Recipe(seed=3).to_json()),
        (None, None),
    ],
)
def test_every_kind_of_value_is_json(value: Any, expected: Any) -> None:
    got = json_values(value)
    assert got == expected
    json.dumps(got, allow_nan=False)


def test_a_comparison_has_its_ratio_which_json_can_hold() -> None:
    shown = json_values(Comparison(stage="relu", mismatch="shape is (1,), should be (2,)"))
    assert (shown["ratio"], shown["error"], shown["agrees"]) == (None, None, False)
    assert shown["mismatch"] == "shape is (1,), should be (2,)"
