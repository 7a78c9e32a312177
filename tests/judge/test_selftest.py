"""The harness tested: what it says of wrong code and of right code, and what it cannot see."""

import json
from typing import Any

import numpy as np
import pytest

from parity.contract.errors import RecipeError
from parity.contract.files import to_json
from parity.judge import selftest as module
from parity.judge.selftest import selftest
from parity.subjects.faults import Edit, Fault
from parity.truth.rounding import Rounding
from parity.truth.stages import STAGES

HALVED = Edit(module="model", old="F.relu(conv1)", new="0.5 * F.relu(conv1)")
SAME = Edit(module="model", old="F.relu(conv1)", new="conv1.relu()")


pytestmark = pytest.mark.wrong_types  # a module imported anew has other classes of the same names


def fault(stage: str, edit: Edit) -> Fault:
    return Fault(name=f"a mistake in {stage}", stage=stage, edits={"torch": (edit,)}, only="a test")


def run(monkeypatch: pytest.MonkeyPatch, *faults: Fault, **options: Any) -> module.SelfTest:
    monkeypatch.setattr(module, "catalogue", lambda: list(faults))
    return selftest(a="torch:eager", b="torch:eager", device="cpu", **options)


@pytest.mark.parametrize(
    ("stage", "edit", "outcome", "shown"),
    [
        ("relu", HALVED, "located", "located"),
        ("pool", HALVED, "caught", "at relu !"),
        ("relu", SAME, "missed", "missed"),
    ],
)
def test_a_mistake_is_located_caught_elsewhere_or_missed(
    stage: str, edit: Edit, outcome: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(monkeypatch, fault(stage, edit), only="mistakes")
    assert {trial.outcome for trial in result.trials} == {outcome}
    assert result.passed == (outcome == "located")
    assert str(result).startswith("passed: of 2" if result.passed else "failed: of 2")
    assert shown in result.table()
    written = json.loads(json.dumps(to_json(result), allow_nan=False))
    assert [trial["outcome"] for trial in written["trials"]] == [outcome] * 2


def test_right_code_is_judged_from_many_states(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    result = run(monkeypatch, only="correct", cases=7, progress=lambda *args: heard.append(args))
    assert result.passed, result.table()
    assert (result.cases, result.trials) == (14, [])
    assert heard == [("correct cases", done, 7) for done in range(1, 8)]
    assert all(0 <= ratio <= 1 for ratio in result.worst.values())
    assert set(result.floors) == set(STAGES)


def test_a_false_alarm_fails_the_test_and_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Rounding.of_loss

    def too_strict(*args: Any) -> object:
        expected = right(*args)
        return expected._replace(bound=0 * expected.bound, value=1 + expected.value)

    monkeypatch.setattr(Rounding, "of_loss", too_strict)
    result = run(monkeypatch, only="correct", cases=1)
    assert not result.passed
    assert [(alarm.seed, alarm.batch_size, alarm.trained) for alarm in result.alarms] == [
        (0, 1, False)
    ] * 2
    assert (
        "false alarm: torch:eager, seed 0, batch of 1, weights at init: step.loss[]"
        in result.table()
    )


def test_the_floor_is_the_smallest_error_that_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error below half of it must get through somewhere, one above it nowhere."""
    result = run(monkeypatch, only="mistakes")
    ulp = float(np.finfo(np.float32).eps)
    assert all(floor.half <= floor.every < 1e-2 for floor in result.floors.values())
    assert result.floors["relu"].every == ulp / 2
    assert result.floors["conv1"].every > ulp
    assert not result.passed  # nothing was tried


@pytest.mark.parametrize(
    ("options", "mend"),
    [({"cases": 0}, "cases must be"), ({"a": "numpy"}, "planted into a backend")],
)
def test_bad_input_is_refused(options: dict[str, Any], mend: str) -> None:
    with pytest.raises(RecipeError, match=mend):
        selftest(**options)
