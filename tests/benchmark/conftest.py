"""Processes of the benchmark that are simulated."""

from typing import Any

import numpy as np
import pytest

from parity.benchmark.bench import bench
from parity.benchmark.process import ProcessLostError
from parity.benchmark.result import Benchmark

STEPS = [0.5, 0.4, 0.3, 0.2, 0.1]
LOSSES = [2.5, 2.0, 1.5, 1.2]


@pytest.fixture
def bound() -> list[tuple[str, bool]]:
    """Each simulated turn's arm, and whether its threads are bound to cores."""
    return []


@pytest.fixture
def simulated(
    monkeypatch: pytest.MonkeyPatch, bound: list[tuple[str, bool]]
) -> dict[str, dict[str, Any]]:
    """Replace processes by arms that take as long as this table says; each can be changed."""
    arms: dict[str, dict[str, Any]] = {
        "torch:eager": {"step": 4e-3, "epoch": 1.0, "first": 4e-3},
        "torch:jit": {"step": 1e-3, "epoch": 0.25, "first": 3.001},
        "jax:jit": {"step": 2e-3, "epoch": 0.5, "first": 1.002},
    }
    noise = np.random.RandomState(0)

    def turn(function: Any, arm: str, *given: Any, threads: int, bind: bool) -> tuple:
        _recipe, _phases, slowdown = given
        own = arms[arm]
        if "ends" in own:
            raise ProcessLostError(own["ends"])
        bound.append((arm, bind))
        losses = own.get("losses", LOSSES)
        seconds = {
            phase: own.get(phase, 1e-3) * (1 + slowdown) * noise.normal(1, 0.02)
            for phase in ("product", "forward", "step", "epoch")
        }
        measured = {
            "first_step": own["first"],
            **seconds,
            "loss": losses[0],
            "retraces": own.get("retraces", 0),
            "memory": 2**20,
            "device_memory": None,
        }
        return {"device": "cpu"}, [*own.get("steps", STEPS), *losses], measured

    monkeypatch.setattr("torchcnn.device._compiler", lambda: "g++")
    monkeypatch.setattr("parity.benchmark.bench.call", turn)
    by_hand = "parity.benchmark.bench._losses_by_hand"
    monkeypatch.setattr(by_hand, lambda *given, epoch: [*STEPS, LOSSES[0]])
    return arms


def run(arms: dict[str, Any], **options: Any) -> Benchmark:
    return bench(**{"arms": list(arms), "dataset": "digits", "threads": 1, **options})
