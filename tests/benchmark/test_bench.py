"""The benchmark: on real processes, and on simulated ones that are slow, wrong or die."""

import dataclasses
import html
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.__main__ import main
from parity.benchmark.bench import ARMS, bench
from parity.benchmark.process import Arm, ArmLostError
from parity.benchmark.result import FORWARD_FLOPS, STEP_FLOPS, Benchmark
from parity.contract.errors import DeviceError, RecipeError
from parity.contract.recipe import Recipe
from parity.report.page import page

STEPS = [0.5, 0.4, 0.3, 0.2, 0.1]
LOSSES = [2.5, 2.0, 1.5, 1.2]


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Replace processes by arms that take as long as this table says; each can be changed."""
    arms: dict[str, dict[str, Any]] = {
        "torch:eager": {"step": 4e-3, "epoch": 1.0, "first": 4e-3},
        "torch:jit": {"step": 1e-3, "epoch": 0.25, "first": 3.001},
        "jax:jit": {"step": 2e-3, "epoch": 0.5, "first": 1.002},
    }
    noise = np.random.RandomState(0)

    class Simulated:
        def __init__(
            self, name: str, recipe: dict[str, Any], *, threads: int, slowdown: float = 0.0
        ) -> None:
            self._told, self._epochs, self._factor = arms[name], 0, 1 + slowdown
            self.hello = {
                "facts": {
                    "backend": name.partition(":")[0],
                    "environment": {"device": "cpu"},
                    "images": 640,
                    "product size": 1000,
                },
                "first": {"forward": 1e-3, "step": self._told["first"]},
                "losses": self._told.get("steps", STEPS),
            }

        def ask(self, *, measure: str) -> dict[str, Any]:
            if measure == "state":
                return {
                    "programs": self._told.get("programs", 0) * self._epochs,
                    "peak": 2**20,
                    "device_peak": None,
                }
            if measure == "epoch":
                self._epochs += 1
                if self._epochs == self._told.get("dies in"):
                    raise ArmLostError("its process was killed by signal 9")
            seconds = self._told.get(measure, 1e-3) * self._factor * noise.normal(1, 0.02)
            losses = self._told.get("losses", LOSSES)
            loss = losses[min(self._epochs, len(losses)) - 1]
            return {"seconds": seconds, "loss": loss, "resident": 2**20}

        def close(self) -> None: ...

    monkeypatch.setattr("torchcnn.device._compiler", lambda: "g++")
    monkeypatch.setattr("parity.benchmark.bench.Arm", Simulated)
    monkeypatch.setattr("parity.benchmark.bench._Bench._by_hand", lambda self: [*STEPS, LOSSES[0]])
    return arms


def run(arms: dict[str, Any], **options: Any) -> Benchmark:
    return bench(**{"arms": list(arms), "dataset": "digits", "threads": 1, **options})


def test_figures_are_what_the_arms_say(simulated: dict[str, dict[str, Any]]) -> None:
    found = run(simulated)
    assert found.passed
    for arm, told in simulated.items():
        assert found.timed[64][arm].spread("step").median == pytest.approx(told["step"], rel=0.05)
        speed = found.ratio(64, "epoch", "torch:eager", arm)
        assert speed is not None
        assert speed.median == pytest.approx(1 / told["epoch"], rel=0.05)
        steps = found.flops(64, "step", arm), found.flops(64, "epoch", arm)
        assert steps[0] == pytest.approx(64 * STEP_FLOPS / told["step"], rel=0.05)
        assert steps[1] == pytest.approx(640 * STEP_FLOPS / told["epoch"], rel=0.05)
        assert found.data_path(64, arm) == pytest.approx(
            1 - 10 * told["step"] / told["epoch"], abs=0.01
        )
    assert found.product_flops(64) == pytest.approx(2e9 / 1e-3, rel=0.05)
    assert found.flops(64, "forward", "jax:jit") == pytest.approx(
        64 * FORWARD_FLOPS / 1e-3, rel=0.1
    )


def test_the_flops_are_those_of_the_products() -> None:
    convolution, linear = 9 * 16 * 26 * 26, 2704 * 10
    assert 2 * (convolution + linear) == FORWARD_FLOPS
    assert 2 * (2 * convolution + 3 * linear) == STEP_FLOPS


def test_compiling_pays_after_what_it_takes_over_what_a_step_saves(
    simulated: dict[str, dict[str, Any]],
) -> None:
    found = run(simulated)
    assert found.break_even(64, "torch:jit") == pytest.approx(3 / 3e-3, rel=0.05)
    assert found.break_even(64, "torch:eager") is None
    assert found.break_even(64, "jax:jit") is None  # its eager twin was not timed


def test_two_that_are_equal_cannot_be_told_apart_and_a_planted_tenth_is_found(
    simulated: dict[str, dict[str, Any]],
) -> None:
    found = run(simulated, slowdown=0.1)
    assert found.again == "jax:jit again"
    assert found.slowed == "jax:jit slowed by 10%"
    assert found.missed == []
    same = found.ratio(64, "epoch", found.again, "jax:jit")
    slow = found.ratio(64, "epoch", found.slowed, "jax:jit")
    assert same is not None
    assert slow is not None
    assert same.undecided
    assert slow.low > 1
    assert slow.median == pytest.approx(1.1, abs=0.03)
    assert "planted slowdown, epoch, batches of 64: detected" in str(found)


def test_a_planted_slowdown_that_is_not_found_fails(simulated: dict[str, dict[str, Any]]) -> None:
    found = run(simulated, slowdown=1e-9)
    assert not found.passed
    assert "the planted slowdown is not detected: step, batches of 64" in str(found)


WRONG = {
    "first step": ({"steps": [0.5001, *STEPS[1:]]}, "its step 1 on one batch is 0.5001, should"),
    "never learns": ({"steps": [0.5] * 5}, "its step 2 on one batch is 0.5, should be 0.4"),
    "not a number": ({"steps": [float("nan")] * 5}, "the loss of its step 1 on one batch is nan"),
    "first epoch": ({"losses": [2.501, 2.0, 1.5]}, "the loss of its first epoch is 2.501, should"),
    "later epoch": ({"losses": [2.5, 2.0, 1.7]}, "the loss of its epoch 3 is 1.7, the arms' med"),
    "later no number": (
        {"losses": [2.5, float("nan")]},
        "the loss of an epoch is not finite",
    ),
    "killed": ({"dies in": 3}, "its process was killed by signal 9"),
    "killed as it starts": ({"dies in": 1}, "its process was killed by signal 9"),
}


@pytest.mark.parametrize(("change", "why"), WRONG.values(), ids=WRONG)
def test_an_arm_that_is_wrong_or_dies_is_void_and_the_others_count(
    simulated: dict[str, dict[str, Any]], change: dict[str, Any], why: str
) -> None:
    simulated["torch:jit"] |= change
    found = run(simulated)
    assert not found.passed
    assert [line.partition(": ")[0] for line in found.void] == ["torch:jit, batches of 64"]
    assert why in found.void[0]
    assert found.ratio(64, "epoch", "torch:eager", "torch:jit") is None
    assert found.ratio(64, "epoch", "torch:eager", "jax:jit") is not None
    assert "torch:jit" in found.table()
    json.dumps(found.to_json(), allow_nan=False)
    assert why in html.unescape(page(found))


def test_programs_that_are_compiled_during_the_rounds_are_counted(
    simulated: dict[str, dict[str, Any]],
) -> None:
    simulated["jax:jit"]["programs"] = 2
    found = run(simulated, rounds=6)
    epochs = 6 * 5  # as many as a turn may have, after its warm-up
    assert found.timed[64]["jax:jit"].retraces == 2 * epochs
    assert found.timed[64]["torch:jit"].retraces == 0


def test_json_and_page_show_all_that_the_screen_does(simulated: dict[str, dict[str, Any]]) -> None:
    found = run(simulated, batch_sizes=(64, 128), command="parity bench --rounds 9")
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    shown, report = found.table(), page(found)
    assert told["command"] == "parity bench --rounds 9"
    for tables in told["tables"].values():
        for rows in tables.values():
            for row in rows:
                assert all(cell in shown for cell in row)
                assert all(f">{cell}</t" in report for cell in row if cell)
    assert report.count("<img") == 6
    assert page(found) == report


@pytest.mark.parametrize("copies", [0.0, 0.1])
def test_copies_have_no_voice_in_what_a_loss_should_be(
    simulated: dict[str, dict[str, Any]], copies: float
) -> None:
    simulated["jax:jit"]["losses"] = [2.5, 2.0, 1.9]
    found = run(simulated, slowdown=copies)
    void = [line.partition(",")[0] for line in found.void]
    assert void[0] == "jax:jit"
    assert len(void) == 2 + bool(copies)


def test_the_same_arm_by_two_names_is_one() -> None:
    with pytest.raises(RecipeError, match="arms must be one or more, and all different"):
        bench(arms=["torch:eager", "torch:eager:layers"], dataset="digits")


REFUSED = {
    "an unknown arm": ({"arms": ["keras"]}, "subject must be one of"),
    "the oracle": ({"arms": ["numpy"]}, "numpy is not made to be timed"),
    "an arm twice": ({"arms": ["seed", "seed"]}, "arms must be one or more, and all different"),
    "no arm": ({"arms": []}, "arms must be one or more"),
    "no phase": ({"phases": []}, "phases must be one or more"),
    "an unknown phase": ({"phases": ["backward"]}, "phases must be of forward, step, epoch"),
    "five rounds": ({"rounds": 5}, "rounds must be an integer of at least 6"),
    "no thread": ({"threads": 0}, "threads must be an integer of at least 1"),
    "too many threads": ({"threads": 10_000}, "threads must be at most"),
    "a negative slowdown": ({"slowdown": -0.1}, "slowdown must be from 0 to 10"),
    "a batch of none": ({"batch_sizes": [0]}, "batch_size must be an integer of at least 1"),
    "seed in float64": ({"arms": ["seed"], "dtype": "float64"}, "seed computes in float32"),
}


@pytest.mark.parametrize(("options", "why"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_timed_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        bench(**{"arms": ["torch:eager"], "dataset": "digits", **options})


def test_a_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="device cuda"):
        bench(arms=["torch:eager"], dataset="digits", device="cuda")


def test_everything_can_be_timed() -> None:
    assert ARMS[0] == "seed"
    assert len(ARMS) == 9


def test_real_processes_are_timed_and_their_losses_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, html = tmp_path / "bench.json", tmp_path / "bench.html"
    options = "--dataset digits --limit 200 --rounds 6 --threads 1 --device cpu"
    arms = ["--phases", "epoch", "--arms", "seed", "torch:eager"]
    outputs = ["--json", str(file), "--report", str(html)]
    monkeypatch.setattr("sys.argv", ["parity", "bench", *options.split(), *arms, *outputs])
    assert main() == 0
    shown = capsys.readouterr().out
    told = json.loads(file.read_text())
    assert told["command"].startswith("parity bench --dataset digits")
    assert told["environment"]["seed"]["threads within an operation"] == 1
    measured = told["batch sizes"]["64"]["arms"]
    assert list(measured) == ["seed", "torch:eager", "torch:eager again"]
    for arm in measured.values():
        assert arm["void"] is None
        assert len(arm["turns"]) == 6
        for turn, by_seed in zip(arm["turns"], measured["seed"]["turns"], strict=True):
            assert list(turn["seconds"]) == ["product", "epoch"]
            assert min(turn["seconds"].values()) > 0
            assert len(turn["losses"]) >= 2
            assert turn["losses"][:2] == pytest.approx(by_seed["losses"][:2], rel=1e-4)
            assert turn["retraces"] == 0
    assert "noise, epoch, batches of 64: torch:eager twice" in shown
    assert html.read_text().startswith("<!doctype html>")


BROKEN = """
import torch.nn.functional as F
right = F.cross_entropy
F.cross_entropy = lambda *given, **named: 1.01 * right(*given, **named)
"""


def test_a_real_arm_whose_losses_are_wrong_or_that_is_killed_is_void_and_exits_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ask = Arm.ask

    def killed(self: Arm, **request: Any) -> dict[str, Any]:
        if request.get("measure") == "forward":
            self._process.send_signal(signal.SIGKILL)
        return ask(self, **request)

    monkeypatch.setattr(Arm, "ask", killed)
    options = "--a torch:eager --b jax:eager --dataset digits --limit 8 --rounds 6 --phases forward"
    monkeypatch.setattr("sys.argv", ["parity", "bench", *options.split(), "--device", "cpu"])
    assert main() == 1
    shown = capsys.readouterr().out
    assert "void: torch:eager, batches of 64: the loss of its step 1 on one batch is" in shown
    assert "void: jax:eager, batches of 64: its process was killed by signal 9" in shown


def test_an_arm_that_cannot_start_says_why() -> None:
    recipe = dataclasses.replace(Recipe(dataset="digits"), device="tpu").to_json()
    with pytest.raises(ArmLostError, match=r"ended with status 1: .*DeviceError: device tpu"):
        Arm("torch:eager", recipe, threads=1)
