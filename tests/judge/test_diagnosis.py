"""The doctor: a healthy machine is called so, and what is planted is named."""

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch

import parity
import torchcnn.device
import torchcnn.harness
import torchcnn.steps
from parity.contract.errors import DeviceError, RecipeError
from parity.contract.files import to_json
from parity.contract.harness import Session
from parity.subjects.subject import Subject
from tests.conftest import COMPILES

pytestmark = pytest.mark.usefixtures("planting")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave PyTorch nothing to compile with, which makes torch:jit unavailable, and tests quick.

    $CXX would be read once for the whole process, and kept.
    """
    monkeypatch.setattr(torchcnn.device, "_compiler", lambda: None)


def diagnosed(monkeypatch: pytest.MonkeyPatch, *names: str, **options: Any) -> parity.Diagnosis:
    """Diagnose these subjects only."""
    subjects = list(map(Subject.parse, names))
    monkeypatch.setattr(Subject, "all", lambda: subjects)
    return parity.diagnose(device="cpu", **{"runs": 2, **options})


def restless(patch: pytest.MonkeyPatch, *runs: int) -> None:
    """Make some of torch:eager's untraced steps return another loss."""
    calls = itertools.count(1)
    right = torchcnn.harness._Session.steps

    def wrong(*args: Any) -> np.ndarray:
        losses = right(*args)
        return np.nextafter(losses, 9) if next(calls) in runs else losses

    patch.setattr(torchcnn.harness._Session, "steps", wrong)


def scaled_in_jit(patch: pytest.MonkeyPatch) -> None:
    """Make JAX's compiled step compute other logits."""
    right = Session.trace

    def wrong(session: Any, *args: Any) -> dict[str, np.ndarray]:
        values = right(session, *args)
        if session._recipe.mode == "jit":
            values["logits"] *= np.float32(1.001)
        return values

    patch.setattr(Session, "trace", wrong)


@pytest.mark.usefixtures("no_compiler")
def test_a_healthy_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    available = ["torch:eager", "torch:eager:fused", "jax:jit", "jax:jit:fused"]
    diagnosis = diagnosed(
        monkeypatch, "torch:jit", *available, runs=3, progress=lambda *told: heard.append(told)
    )
    assert (diagnosis.healthy, diagnosis.exit_code) == (True, 0)
    assert str(diagnosis).splitlines()[-1].startswith("healthy: every available subject")
    compiled = [f"{name}, compiling" if "jit" in name else name for name in available]
    assert heard == [
        (compiled[turn] if run == 0 else name, 3 * turn + run, 12)
        for turn, name in enumerate(available)
        for run in range(4)
    ]
    lines = {line.split()[0]: line for line in diagnosis.table().splitlines() if line}
    assert lines["torch:jit"].endswith("not available")
    said = "not available: torch:jit: mode jit: torch.compile needs a C++ compiler"
    assert said in " ".join(diagnosis.table().split())
    assert all(len(line) <= 80 for line in diagnosis.table().splitlines())
    assert all(lines[name].endswith("the same bits") for name in available)
    assert not diagnosis.modes
    report = json.loads(json.dumps(to_json(diagnosis), allow_nan=False))
    assert report["subjects"]["torch:jit"]["missing"].startswith("mode jit")
    assert report["subjects"]["jax:jit"]["repetition"]["distinct"] == 1
    assert report["environment"]["torch"]["device"] == "cpu"


@COMPILES
def test_a_compiled_step_of_pytorch_is_examined_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """More runs than PyTorch would recompile a step for: each state is loaded in place."""
    diagnosis = diagnosed(monkeypatch, "torch:eager", "torch:jit", runs=10)
    found = diagnosis.subjects["torch:jit"]
    assert found.right, str(diagnosis)
    assert found.repetition is not None
    assert found.repetition.runs == 10
    assert list(diagnosis.modes) == ["torch"]


def test_a_wrong_stage_is_named_and_exits_1(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torchcnn.steps.cross_entropy
    monkeypatch.setattr(torchcnn.steps, "cross_entropy", lambda z, y: 1.001 * right(z, y))
    diagnosis = diagnosed(monkeypatch, "torch:eager", "jax:jit")
    assert (diagnosis.healthy, diagnosis.exit_code) == (False, 1)
    assert "torch:eager: wrong from stage loss" in str(diagnosis)
    assert "healthy" not in str(diagnosis)
    assert to_json(diagnosis)["subjects"]["torch:eager"]["wrong"]["stage"] == "loss"
    assert diagnosis.subjects["jax:jit"].right


def test_a_step_that_is_right_only_while_it_is_traced_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = torchcnn.harness._Session.steps
    monkeypatch.setattr(
        torchcnn.harness._Session,
        "steps",
        lambda session, x, y, order: right(session, x, (y + 1) % 10, order),
    )
    diagnosis = diagnosed(monkeypatch, "torch:eager")
    assert diagnosis.exit_code == 1
    assert "torch:eager: wrong from stage step.loss" in str(diagnosis)


def test_a_wrong_compiler_is_told_from_a_wrong_build(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled_in_jit(monkeypatch)
    diagnosis = diagnosed(monkeypatch, "jax:eager", "jax:jit")
    assert diagnosis.exit_code == 1
    assert "jax:jit: wrong from stage logits" in str(diagnosis)
    assert "jax:eager is right, so this build's jit mode computes something else" in str(diagnosis)


def test_a_wrong_kernel_is_told_from_a_wrong_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchcnn.fused._at_least", lambda a, b: torch.ones_like(a))
    diagnosis = diagnosed(monkeypatch, "torch:eager", "torch:eager:fused")
    assert diagnosis.exit_code == 1
    assert "torch:eager:fused: wrong from stage grad.conv1.weight" in str(diagnosis)
    assert "torch:eager is right, so this build's fused kernel computes" in str(diagnosis)


def test_a_step_with_several_results_exits_3_and_says_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    restless(monkeypatch, 3, 5)
    diagnosis = diagnosed(monkeypatch, "torch:eager", runs=5)
    assert (diagnosis.healthy, diagnosis.exit_code) == (False, 3)
    assert "torch:eager: 2 distinct results in 5 runs, first in step.loss" in str(diagnosis)
    assert "not deterministic" in str(diagnosis)
    assert "try one thread" in str(diagnosis)
    gpu = {**diagnosis.environment, "torch": {"device": "cuda: a GPU"}}
    on_gpu = dataclasses.replace(diagnosis, environment=gpu)
    assert "try --device cpu" in str(on_gpu)
    assert "2 distinct results !" in diagnosis.table()
    report = json.loads(json.dumps(to_json(diagnosis), allow_nan=False))
    assert report["subjects"]["torch:eager"]["repetition"]["distinct"] == 2


def test_wrong_goes_before_not_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    restless(monkeypatch, 2)
    scaled_in_jit(monkeypatch)
    diagnosis = diagnosed(monkeypatch, "torch:eager", "jax:jit")
    assert diagnosis.exit_code == 1
    assert "torch:eager: 2 distinct results" in str(diagnosis)
    assert "jax:jit: wrong from stage logits" in str(diagnosis)


def test_a_framework_that_breaks_down_exits_1_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: Any) -> float:
        raise RuntimeError("CUDA error:\n  an illegal instruction")

    monkeypatch.setattr(torchcnn.harness._Session, "steps", broken)
    diagnosis = diagnosed(monkeypatch, "torch:eager", "jax:jit")
    assert diagnosis.exit_code == 1
    assert "torch:eager: fails: RuntimeError: CUDA error: an illegal instruction" in str(diagnosis)
    assert diagnosis.subjects["jax:jit"].right
    json.dumps(to_json(diagnosis), allow_nan=False)


@pytest.mark.wrong_types
@pytest.mark.parametrize("runs", [1, 0, True, 2.5])
def test_fewer_than_two_runs_show_nothing_and_are_refused(runs: Any) -> None:
    with pytest.raises(RecipeError, match="runs must be an integer of at least 2"):
        parity.diagnose(runs=runs)


def test_a_device_that_no_framework_has_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"no subject is available: .*PyTorch.*; .*JAX"):
        parity.diagnose(device="cuda")
