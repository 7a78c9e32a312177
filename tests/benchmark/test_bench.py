"""The benchmark, on simulated processes that are slow, wrong or die."""

import html
import json
from typing import Any

import pytest

from parity.benchmark.bench import ARMS, bench
from parity.benchmark.result import FORWARD_FLOPS, STEP_FLOPS, Benchmark
from parity.benchmark.stats import Speed, Start
from parity.contract.errors import DeviceError, RecipeError
from parity.contract.files import to_json
from parity.report.page import page
from tests.benchmark.conftest import STEPS, run


def speed(found: Benchmark, phase: str, arm: str) -> Speed:
    return found.speeds[64][phase][arm]


def start(found: Benchmark, arm: str) -> Start:
    return found.starts[64][arm]


def test_figures_are_what_the_arms_say(simulated: dict[str, dict[str, Any]]) -> None:
    found = run(simulated, limit=640)
    assert found.passed
    for arm, own in simulated.items():
        step, epoch = speed(found, "step", arm), speed(found, "epoch", arm)
        assert step.seconds.median == pytest.approx(own["step"], rel=0.05)
        assert epoch.speed is not None
        assert epoch.speed.median == pytest.approx(1 / own["epoch"], rel=0.05)
        assert step.flops == pytest.approx(64 * STEP_FLOPS / own["step"], rel=0.05)
        assert epoch.flops == pytest.approx(640 * STEP_FLOPS / own["epoch"], rel=0.05)
        assert step.flops / step.of_product == pytest.approx(2 * 1024**3 / 1e-3, rel=0.05)
        data_path = 1 - 10 * own["step"] / own["epoch"]
        assert start(found, arm).data_path == pytest.approx(data_path, abs=0.01)
        assert start(found, arm).first_step == own["first"]
    forward = speed(found, "forward", "jax:jit")
    assert forward.flops == pytest.approx(64 * FORWARD_FLOPS / 1e-3, rel=0.1)


def test_the_smaller_last_batch_has_its_part_of_a_step(
    simulated: dict[str, dict[str, Any]],
) -> None:
    found = run(simulated, limit=672)
    assert start(found, "jax:jit").data_path == pytest.approx(1 - 10.5 * 2e-3 / 0.5, abs=0.01)


def test_the_threads_of_pytorch_are_bound_to_cores(
    simulated: dict[str, dict[str, Any]], bound: list[tuple[str, bool]]
) -> None:
    run(simulated)
    assert set(bound) == {("torch:eager", True), ("torch:jit", True), ("jax:jit", False)}


def test_the_flops_are_those_of_the_products() -> None:
    convolution, linear = 9 * 16 * 26 * 26, 2704 * 10
    assert 2 * (convolution + linear) == FORWARD_FLOPS
    assert 2 * (2 * convolution + 3 * linear) == STEP_FLOPS


def test_compiling_pays_after_what_it_takes_over_what_a_step_saves(
    simulated: dict[str, dict[str, Any]],
) -> None:
    found = run(simulated)
    assert start(found, "torch:jit").pays_after == pytest.approx(3 / 3e-3, rel=0.05)
    assert start(found, "torch:jit").compile_seconds == pytest.approx(3, rel=0.05)
    assert start(found, "torch:eager").pays_after is None
    assert start(found, "jax:jit").pays_after is None  # its eager twin was not timed


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
    "later no number": ({"losses": [2.5, float("nan")]}, "the loss of an epoch is not finite"),
    "killed": ({"ends": "its process was killed by signal 9"}, "was killed by signal 9"),
}


@pytest.mark.parametrize(("change", "why"), WRONG.values(), ids=WRONG)
def test_an_arm_that_is_wrong_or_dies_does_not_count_and_the_others_do(
    simulated: dict[str, dict[str, Any]], change: dict[str, Any], why: str
) -> None:
    simulated["torch:jit"] |= change
    found = run(simulated)
    assert not found.passed
    assert [line.partition(": ")[0] for line in found.failed] == ["torch:jit, batches of 64"]
    assert why in found.failed[0]
    assert list(found.starts[64]) == ["torch:eager", "jax:jit", "jax:jit again"]
    assert speed(found, "epoch", "jax:jit").speed is not None
    assert ("torch:jit", "does not count") in [row[:2] for row in found.rows(64, "epoch")]
    assert "torch:jit" in found.table()
    json.dumps(to_json(found), allow_nan=False)
    assert why in html.unescape(page(found))


def test_what_is_compared_with_an_arm_that_does_not_count_has_no_speed(
    simulated: dict[str, dict[str, Any]],
) -> None:
    simulated["torch:eager"]["ends"] = "its process was killed by signal 9"
    found = run(simulated)
    assert speed(found, "step", "jax:jit").speed is None
    assert start(found, "torch:jit").pays_after is None


def test_the_matrix_product_is_that_of_each_batch_size(
    simulated: dict[str, dict[str, Any]],
) -> None:
    found = run(simulated, batch_sizes=(64, 128))
    for timed in found.timed[128].values():
        timed.rounds = [measured | {"product": 0.1} for measured in timed.rounds]
    assert found.product_flops(128) == pytest.approx(2 * 1024**3 / 0.1)
    assert "batches of 128; a matrix product: 21.5 GFLOP/s" in found.table()
    assert found.product_flops(64) == pytest.approx(2 * 1024**3 / 1e-3, rel=0.05)


def test_programs_that_are_compiled_during_the_rounds_are_counted(
    simulated: dict[str, dict[str, Any]],
) -> None:
    simulated["jax:jit"]["retraces"] = 2
    found = run(simulated, rounds=6)
    assert start(found, "jax:jit").retraces == 2 * 6
    assert start(found, "torch:jit").retraces == 0


def test_json_and_page_show_all_that_the_screen_does(
    simulated: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/parity", "bench", "--rounds", "9"])
    found = run(simulated, batch_sizes=(64, 128))
    values = json.loads(json.dumps(to_json(found), allow_nan=False))
    shown, report = found.table(), page(found)
    assert values["command"] == "parity bench --rounds 9"
    for size in (64, 128):
        for phase, arms in found.speeds[size].items():
            for arm, each in arms.items():
                written = values["speeds"][str(size)][phase][arm]
                assert written["seconds"]["median"] == each.seconds.median
        starts = values["starts"][str(size)].values()
        assert [each["memory"] for each in starts] == [2**20] * 4
        for rows in (found.costs(size), *(found.rows(size, phase) for phase in found.phases)):
            for row in rows:
                assert all(cell in shown for cell in row)
                assert all(f">{cell}</t" in report for cell in row if cell)
    assert report.count("<img") == 12  # times and speeds of three phases, at two sizes
    assert page(found) == report


def test_the_same_arm_by_two_names_is_one() -> None:
    with pytest.raises(RecipeError, match="arms must be one or more, and all different"):
        bench(arms=["torch:eager", "torch:eager:layers"], dataset="digits")


REFUSED = {
    "an unknown arm": ({"arms": ["keras"]}, "arm must be one of tutorial"),
    "the oracle": ({"arms": ["numpy"]}, "arm must be one of tutorial, torch:eager"),
    "an arm twice": (
        {"arms": ["tutorial", "tutorial"]},
        "arms must be one or more, and all different",
    ),
    "no arm": ({"arms": []}, "arms must be one or more"),
    "no phase": ({"phases": []}, "phases must be one or more"),
    "an unknown phase": ({"phases": ["backward"]}, "phases must be of forward, step, epoch"),
    "five rounds": ({"rounds": 5}, "rounds must be an integer of at least 6"),
    "no thread": ({"threads": 0}, "threads must be an integer of at least 1"),
    "too many threads": ({"threads": 10_000}, "threads must be at most"),
    "a negative slowdown": ({"slowdown": -0.1}, "slowdown must be from 0 to 10"),
    "a batch of none": ({"batch_sizes": [0]}, "batch_size must be an integer of at least 1"),
    "the tutorial in float64": (
        {"arms": ["tutorial"], "dtype": "float64"},
        "tutorial computes in float32",
    ),
}


@pytest.mark.wrong_types
@pytest.mark.parametrize(("options", "why"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_timed_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        bench(**{"arms": ["torch:eager"], "dataset": "digits", **options})


@pytest.mark.parametrize("name", ["mode", "kernel", "batch_size"])
def test_what_each_arm_sets_itself_is_no_option(name: str) -> None:
    options: dict[str, Any] = {"dataset": "digits", name: "jit"}
    with pytest.raises(TypeError, match=name):
        bench(**options)


def test_a_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="device cuda"):
        bench(arms=["torch:eager"], dataset="digits", device="cuda")


def test_everything_can_be_timed() -> None:
    assert ARMS[0] == "tutorial"
    assert len(ARMS) == 9
