"""A training that was away goes on as if it had not been, in either framework."""

import dataclasses
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import jaxcnn
import torchcnn
from parity.contract.backend import Backend
from parity.contract.cli import programs as cli
from parity.contract.data.datasets import digits
from parity.contract.errors import CheckpointError
from parity.contract.recipe import DType, Recipe
from parity.contract.run.checkpoint import Checkpoint, read_checkpoint
from parity.contract.run.observers import Observer
from parity.contract.run.progress import Progress, as_another_training
from parity.contract.state import State
from parity.judge.states import numbers

RECIPE = Recipe(dataset="digits", epochs=2, batch_size=16, limit=600, device="cpu", dtype="float64")
"""An epoch has 38 batches, the last one of 8 images."""

LOOKS = {"torchcnn": (32, 37, 38), "jaxcnn": (37, 38)}
"""Batches after which a training looks up; before the smaller one always, eager after 32."""

FLOAT32 = dataclasses.replace(RECIPE, dtype="float32")

KILLS = int(os.environ.get("CNN_KILLS", "1"))
"""How often a training is killed; by hand, do it more often."""


class Recorder(Observer):
    """Keeps a checkpoint of every place where a training looks up."""

    def __init__(self, backend: Backend, every: int | None) -> None:
        self.backend, self.every = backend, every
        self.kept: list[Checkpoint] = []

    def paused(self, progress: Progress, state: State) -> None:
        self.kept.append(progress.checkpoint(state, self.backend.__name__, versions={}))


def losses(checkpoints_epochs: tuple | list) -> list[tuple[float, float, float]]:
    return [(r.loss, r.test_loss, r.test_accuracy) for r in checkpoints_epochs]


@pytest.mark.parametrize(
    ("first", "other", "dtype"),
    [
        (torchcnn, torchcnn, "float32"),
        (torchcnn, torchcnn, "float64"),
        (torchcnn, jaxcnn, "float64"),
        (jaxcnn, torchcnn, "float64"),
        (jaxcnn, jaxcnn, "float64"),
    ],
)
def test_a_training_goes_on_from_wherever_it_stood(
    first: Backend, other: Backend, dtype: DType
) -> None:
    """In PyTorch to the bit; with JAX, whose threads may add in another order, to rounding.

    In float64 that of 76 steps stays below 1e-12.
    """
    recipe = dataclasses.replace(RECIPE, dtype=dtype)
    recorder = Recorder(first, every=25)
    whole = first.fit(recipe, observer=recorder)
    places = [(kept.epoch, kept.batch) for kept in recorder.kept]
    assert places == [
        *[(1, batch) for batch in (0, 25, *LOOKS[first.__name__])],
        *[(2, batch) for batch in (0, 12, *LOOKS[first.__name__])],
        (3, 0),
    ]
    limit = 0 if first is other is torchcnn else 1e-12
    for start in recorder.kept[1:]:
        resumed = other.fit(recipe, start=start)
        assert np.abs(numbers(resumed.state) - numbers(whole.state)).max() <= limit
        assert len(resumed.epochs) == 2
        gaps = np.subtract(losses(resumed.epochs), losses(whole.epochs))
        assert np.abs(gaps).max() <= 40 * limit


ONE_THREAD = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import numpy as np, jaxcnn, tests.backends.test_resume as t
whole = jaxcnn.fit(t.FLOAT32, observer=(kept := t.Recorder(jaxcnn, every=25)))
for start in kept.kept[1:]:
    resumed = jaxcnn.fit(t.FLOAT32, start=start)
    assert np.array_equal(t.numbers(resumed.state), t.numbers(whole.state)), start.state.step
    assert t.losses(resumed.epochs) == t.losses(whole.epochs), start.state.step
"""


def test_jax_on_one_thread_goes_on_to_the_bit() -> None:
    subprocess.run([sys.executable, "-c", ONE_THREAD], check=True, env=environment())


CHANGES = {"seed": 1, "batch_size": 8, "limit": 500, "lr": 1e-2, "dtype": "float32"}


@pytest.mark.parametrize(("field", "value"), CHANGES.items())
def test_another_training_is_refused_unless_it_is_asked_for(
    backend: Backend, field: str, value: object
) -> None:
    recorder = Recorder(backend, every=None)
    backend.fit(dataclasses.replace(RECIPE, epochs=1), observer=recorder)
    start = recorder.kept[1]
    assert start.batch == LOOKS[backend.__name__][0]
    recipe = dataclasses.replace(RECIPE, epochs=1, **{field: value})
    with pytest.raises(CheckpointError, match=rf"has {field} .*, not {value!r}.*--override"):
        backend.fit(recipe, start=start)
    changed = as_another_training(start, recipe)
    assert changed.batch == (start.batch if field in ("lr", "dtype") else 0)
    assert backend.fit(recipe, start=changed).state.step > start.state.step


def test_other_images_are_refused(backend: Backend) -> None:
    recorder = Recorder(backend, every=None)
    backend.fit(dataclasses.replace(RECIPE, epochs=1), observer=recorder)
    data = digits()
    images = data.test.images.copy()
    images[0, 0, 0] ^= 1
    other = dataclasses.replace(data, test=dataclasses.replace(data.test, images=images))
    with pytest.raises(CheckpointError, match=r"other images.*--override"):
        backend.fit(RECIPE, dataset=other, start=recorder.kept[1])


def test_more_batches_than_an_epoch_has_are_refused(backend: Backend) -> None:
    recorder = Recorder(backend, every=None)
    recipe = dataclasses.replace(RECIPE, limit=None, epochs=1)
    backend.fit(dataclasses.replace(RECIPE, epochs=1), observer=recorder)
    start = dataclasses.replace(recorder.kept[1], recipe=recipe, dataset_sha256=None, batch=91)
    with pytest.raises(CheckpointError, match="91 batches of an epoch that has 90 here"):
        backend.fit(recipe, start=start)


TRAIN = ["train", "--dataset", "digits", "--dtype", "float64", "--save-every", "10", "--quiet"]


def command(backend: Backend, *options: str) -> list[str]:
    return [sys.executable, "-m", backend.__name__, *options]


def environment() -> dict[str, str]:
    return {**os.environ, "JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize("other", [torchcnn, jaxcnn])
def test_a_training_that_is_killed_at_any_instant_ends_as_if_it_had_not_been(
    backend: Backend, other: Backend, tmp_path: Path
) -> None:
    """The uninterrupted run's parameters, in float64, to 1e-12; PyTorch's own to the bit."""
    whole = Recipe(dataset="digits", dtype="float64", epochs=3)
    started = time.monotonic()
    expected = numbers(backend.fit(whole).state)
    lasts = time.monotonic() - started
    instants = random.Random(0)
    for kill in range(KILLS):
        out = tmp_path / str(kill)
        run = command(backend, *TRAIN, "--epochs", "3", "--out", str(out))
        with subprocess.Popen(run, env=environment()) as process:
            while not (out / "checkpoint.safetensors").exists():  # of the start
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(lasts * instants.random())
            process.kill()
        resumed = command(other, "train", "--resume", str(out), "--quiet")
        subprocess.run(resumed, check=True, env=environment())
        got = read_checkpoint(out)
        limit = 0 if backend is other is torchcnn else 1e-12
        assert (got.epoch, len(got.epochs)) == (4, 3)
        assert np.abs(numbers(got.state) - expected).max() <= limit
        assert len((out / "history.jsonl").read_text().splitlines()) == 3
        assert sorted(path.name for path in out.iterdir()) == [
            ".lock",
            "checkpoint.safetensors",
            "history.jsonl",
            "recipe.json",
        ]


def run(backend: Backend, *argv: str) -> int:
    return cli.main(backend, "A description.", argv)


@pytest.mark.parametrize(
    ("backend", "number"),
    [("torchcnn", signal.SIGTERM), ("jaxcnn", signal.SIGINT)],
    indirect=["backend"],
)
def test_a_signal_stops_it_between_two_steps_and_saves(
    backend: Backend, number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until then, no other training is let into its folder."""
    out = tmp_path / "run"
    options = ["--dataset", "digits", "--epochs", "9999", "--out", str(out)]
    with subprocess.Popen(
        command(backend, "train", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Epoch 1"):
            assert process.poll() is None
        for busy in (["--resume", str(out)], [*options]):
            assert run(backend, "train", *busy) == 2
            assert f"another training is writing to {out}" in capsys.readouterr().err
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    [step] = re.findall(
        rf"^{backend.__name__}: stopped after step (\d+) \(epoch .*continue with --resume {out}\n$",
        error,
    )
    assert read_checkpoint(out).state.step == int(step)


def test_the_command_line_goes_on_by_the_checkpoints_recipe(
    backend: Backend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = str(tmp_path / "run"), str(tmp_path / "other")
    first = [
        "--dataset",
        "digits",
        "--limit",
        "100",
        "--seed",
        "5",
        "--lr",
        "0.002",
        "--epochs",
        "1",
    ]
    assert run(backend, "train", *first, "--device", "cpu", "--out", out) == 0
    assert run(backend, "train", "--resume", out, "--epochs", "2", "--out", other) == 0
    assert "continues with epoch 2, batch 1\nEpoch 2, " in capsys.readouterr().out
    last = read_checkpoint(tmp_path / "other")
    assert (last.recipe.seed, last.recipe.lr, last.state.step) == (5, 0.002, 4)
    assert read_checkpoint(tmp_path / "run").state.step == 2
    for options, mend in [
        (["--resume", out, "--seed", "6"], "has seed 5, not 6"),
        (["--resume", out, "--seed=6"], "has seed 5, not 6"),
        (["--resume", out, "--dataset", "mnist"], "has dataset 'digits', not 'mnist'"),
        (["--resume", str(tmp_path / "none")], "is not there"),
        (["--override"], "override needs --resume"),
        (["--save-every", "5"], "save_every needs --out"),
        (["--resume", out, "--save-every", "0"], "save_every must be an integer of at least 1"),
        (["--resume", out, "--out", other], "exists already"),
        (["--resume", str(tmp_path / "other"), "--epochs", "1"], "give --epochs 2 or more"),
        (
            ["--resume", str(tmp_path / "other"), "--epochs", "1", "--override"],
            "give --epochs 2 or more",
        ),
    ]:
        assert run(backend, "train", *options) == 2
        assert mend in capsys.readouterr().err
    inner = str(tmp_path / "other" / "inner")
    assert run(backend, "train", "--resume", out, "--epochs", "2", "--out", inner) == 0
    before = (tmp_path / "other" / "checkpoint.safetensors").read_bytes()
    assert run(backend, "train", "--resume", inner, "--epochs", "3", "--out", other) == 2
    assert (tmp_path / "other" / "checkpoint.safetensors").read_bytes() == before
    capsys.readouterr()
    assert run(backend, "train", "--resume", inner) == 0
    assert "all 2 epochs are done; give --epochs for more" in capsys.readouterr().out
    assert run(backend, "train", "--resume", out, "--seed", "6", "--override", "--epochs", "2") == 0
    assert read_checkpoint(tmp_path / "run").recipe.seed == 6
