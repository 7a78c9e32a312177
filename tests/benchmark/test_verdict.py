"""What a benchmark says: who is the fastest, and when nothing can be said."""

import html
from typing import Any

import numpy as np
import pytest

from parity.benchmark.stats import Ratio
from parity.report.page import page
from tests.benchmark.conftest import run


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Cores that other processes keep busy, as often as that is measured, from now on."""
    cores: list[float] = []

    class Others:
        def cores(self) -> float | None:
            return cores[0] if cores else None

    monkeypatch.setattr("parity.benchmark.bench.Others", Others)
    return cores


def test_the_headline_names_the_winner_with_its_interval(
    simulated: dict[str, dict[str, Any]], loaded: list[float]
) -> None:
    loaded.append(0.05)
    found = run(simulated)
    assert (found.busy, found.noisy, found.exit_code) == (None, [], 0)
    step, second = found.headlines[1], found.ratio(64, "step", "jax:jit", "torch:jit")
    first = found.ratio(64, "step", "torch:eager", "torch:jit")
    fastest = f"torch:jit is the fastest, {second} times as fast as jax:jit"
    expected = f"step, batches of 64: {fastest}, {first} times as fast as torch:eager"
    assert step == expected == str(found).splitlines()[1]
    assert "forward, batches of 64: " in found.headlines[0]
    assert "cannot be told apart" in found.headlines[0]
    assert found.headlines[2] in html.unescape(page(found))


def test_a_busy_machine_gives_no_verdict(
    simulated: dict[str, dict[str, Any]], loaded: list[float]
) -> None:
    loaded.append(0.9)
    found = run(simulated, slowdown=0.1)
    cores = found.environment.get("cores usable") or found.environment["cores"]
    found.environment["cores usable"] = 2
    assert found.exit_code == 3
    said = "other processes kept 0.9 before the turns and 0.9 during the turns of 2 cores busy"
    assert str(found).startswith(f"no verdict, the machine is busy: {said}; stop them, or wait")
    assert "fastest" not in str(found)
    assert "detected" not in str(found)
    assert "No verdict" in page(found)
    found.environment["cores usable"] = 64  # of which 62 are left for them
    assert found.busy is None
    assert cores


def test_an_arm_that_differs_from_itself_gives_no_verdict(
    simulated: dict[str, dict[str, Any]],
) -> None:
    found = run(simulated)
    again = found.timed[64][found.again]
    wild = np.random.RandomState(1).lognormal(0, 1.5, len(again.rounds))
    again.rounds = [r | {"step": x * r["step"]} for r, x in zip(again.rounds, wild, strict=True)]
    assert found.exit_code == 3
    assert [line.partition(":")[0] for line in found.noisy] == ["step, batches of 64"]
    assert str(found).startswith("no verdict, too noisy: step, batches of 64: jax:jit differs")
    assert "fastest" not in str(found)


def test_no_more_is_claimed_than_the_noise_allows(simulated: dict[str, dict[str, Any]]) -> None:
    """A tenth between two arms is nothing where equals differ by two tenths."""
    simulated["torch:jit"]["step"] = 1.8e-3
    assert "torch:jit is the fastest" in run(dict.fromkeys(["torch:jit", "jax:jit"])).headlines[1]
    found = run(dict.fromkeys(["torch:jit", "jax:jit"]))
    again = found.timed[64][found.again]
    again.rounds = [measured | {"step": 1.2 * measured["step"]} for measured in again.rounds]
    assert "cannot be told apart" in found.headlines[1]


def test_what_is_detected_excludes_1_as_printed() -> None:
    assert Ratio(1.1, 1.006, 1.2).longer
    for low in (1.0004, 1.0, 0.9):
        assert not Ratio(1.1, low, 1.2).longer
        assert Ratio(1.1, low, 1.2).undecided
