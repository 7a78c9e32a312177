"""Several processes are the same training as one: digits in float64, by processes of their own."""

import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import jax
import numpy as np
import pytest

from parity.contract.backend import Backend
from parity.contract.errors import DeviceError, RecipeError
from parity.contract.processes import Processes
from parity.contract.recipe import Recipe
from parity.contract.run.checkpoint import Checkpoint, read_checkpoint
from parity.contract.run.history import History
from parity.contract.state import State

RECIPE = Recipe(dataset="digits", dtype="float64", limit=193, epochs=2)
"""Batches of 64, 64, 64 and 1: over three processes, shares are unequal in each, or empty."""


def options(recipe: Recipe) -> list[str]:
    """Return what gives a recipe on the command line."""
    given = {name: value for name, value in vars(recipe).items() if value != getattr(Recipe, name)}
    words = ([f"--{name.replace('_', '-')}", str(value)] for name, value in given.items())
    return [word for pair in words for word in pair]


def start(program: str, count: int, *args: str) -> list[subprocess.Popen[str]]:
    """Start so many processes that train together."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"
    base = [sys.executable, "-m", program, "train", "--coordinator", where]
    base += ["--processes", str(count), *args, "--process-id"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen([*base, str(i)], stdout=-1, stderr=-1, text=True, env=environment)
        for i in range(count)
    ]


def ends(processes: list[subprocess.Popen[str]], status: int) -> list[tuple[str, str]]:
    """Return standard output and error of each once it has ended, as all must."""
    said = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), said
    return said


def losses(text: str) -> list[tuple[str, str]]:
    """Return each epoch's loss and accuracy as they are printed."""
    return re.findall(r"^Epoch \d+, Loss: ([0-9.]+), test ([0-9.]+%)", text, re.MULTILINE)


def fit_alone(program: str, start: Checkpoint | None = None) -> History:
    return cast(Backend, importlib.import_module(program)).fit(RECIPE, start=start)


def apart(a: State, b: State) -> float:
    """Return the largest difference of a number between two states of one step."""
    assert a.step == b.step
    named = b.named()
    return max(float(np.abs(value - named[name]).max()) for name, value in a.named().items())


@pytest.mark.parametrize(
    ("program", "more"), [("torchcnn", []), ("jaxcnn", ["--devices", "2"])]
)  # fmt: skip
def test_processes_print_the_digits_of_one_and_end_at_its_parameters(
    program: str, more: list[str], tmp_path: Path
) -> None:
    count = 3 if program == "torchcnn" else 2
    page = ["--report", str(tmp_path / "page.html")]
    said = ends(
        start(program, count, *options(RECIPE), "--out", str(tmp_path / "a"), *page, *more), 0
    )
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    alone = fit_alone(program)
    assert losses(said[0][0]) == losses("\n".join(map(str, alone.epochs)))
    assert [output for output, _ in said[1:]] == [""] * (count - 1)
    assert [error for _, error in said] == [""] * count
    checkpoint = read_checkpoint(tmp_path / "a")
    assert apart(checkpoint.state, alone.state) < 1e-12
    assert "processes" not in json.dumps(checkpoint.to_json())
    history = (tmp_path / "a/history.jsonl").read_text().splitlines()
    assert len(history) == RECIPE.epochs


def test_a_signal_to_one_process_stops_all_and_another_number_of_another_backend_continues(
    tmp_path: Path,
) -> None:
    endless = [*options(RECIPE), "--epochs", "100000"]
    processes = start("torchcnn", 2, *endless, "--save-every", "1", "--out", str(tmp_path))
    wait_for(tmp_path / "history.jsonl", lambda text: bool(text))
    processes[1].send_signal(signal.SIGTERM)
    said = ends(processes, 143)
    assert "stopped after step" in said[0][1]
    assert said[1] == ("", "")
    stopped = read_checkpoint(tmp_path)
    recipe = replace(RECIPE, epochs=stopped.epoch)
    switched, never = (
        cast(Backend, importlib.import_module(program)).fit(recipe, start=start)
        for program, start in (("jaxcnn", stopped), ("torchcnn", None))
    )
    assert apart(switched.state, never.state) < 1e-12


@pytest.mark.parametrize(("program", "victim"), [("torchcnn", 1), ("jaxcnn", 0)])
def test_where_one_process_is_killed_the_others_end_with_a_line(
    program: str, victim: int, tmp_path: Path
) -> None:
    recipe = [*options(RECIPE), "--epochs", "100000", "--out", str(tmp_path)]
    processes = start(program, 2, *recipe)
    wait_for(tmp_path / "history.jsonl", lambda text: text.count("\n") > 1)
    processes[victim].kill()
    started = time.monotonic()
    processes[victim].communicate()
    (_, error) = ends([processes[1 - victim]], 2)[0]
    assert time.monotonic() - started < 10
    assert error.startswith(f"{program}: error: process {victim} of 2 has ended")
    assert error.count("\n") == 1
    assert read_checkpoint(tmp_path).epoch > 1


def wait_for(file: Path, condition: object) -> None:
    deadline = time.monotonic() + 200
    while not (file.exists() and callable(condition) and condition(file.read_text())):
        assert time.monotonic() < deadline, f"{file} does not come"
        time.sleep(0.1)


def test_torchrun_starts_them_too(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    here = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    command = [*torchrun, *here, "-m", "torchcnn", "train", *options(RECIPE)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert losses(run.stdout) == losses("\n".join(map(str, fit_alone("torchcnn").epochs)))


def test_one_process_is_alone_however_it_was_started(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")  # as torchrun sets it
    monkeypatch.setenv("RANK", "0")
    here = Processes(coordinator="127.0.0.1:1", processes=1, process_id=0)
    for processes in (Processes(), Processes(processes=1), Processes(devices=1), here):
        with backend.joined(processes) as group:
            assert (group.index, group.count) == (0, 1)


def test_more_devices_than_there_are_are_refused(backend: Backend) -> None:
    jax.devices()  # from here on their number is fixed
    with pytest.raises(DeviceError, match="devices 3"), backend.joined(Processes(devices=3)):
        backend.fit(RECIPE)


def test_processes_that_nobody_has_started_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    torchcnn = cast(Backend, importlib.import_module("torchcnn"))
    with pytest.raises(RecipeError, match="start them with torchrun"):
        torchcnn.joined(Processes(processes=2)).__enter__()
