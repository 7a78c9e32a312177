import json
from pathlib import Path

import pytest

from parity.contract.datasets import Dataset
from parity.contract.errors import OutputError
from parity.contract.history import Epoch, Observer, Observers, RunFolder
from parity.contract.recipe import Recipe

EPOCH = Epoch(epoch=1, loss=278.8623, test_loss=0.12, test_accuracy=0.96051, seconds=4.04)


def test_an_epochs_line_begins_as_the_tutorials() -> None:
    assert str(EPOCH) == "Epoch 1, Loss: 278.862, test 96.05%, 4.0 s"


def test_a_run_folder_gets_the_recipe_and_a_line_an_epoch(tmp_path: Path, tiny: Dataset) -> None:
    folder = RunFolder(tmp_path / "runs" / "a")
    folder.start("torchcnn", Recipe(seed=3), tiny)
    folder.epoch(EPOCH)
    folder.epoch(EPOCH)
    recipe = json.loads((tmp_path / "runs/a/recipe.json").read_text())
    lines = (tmp_path / "runs/a/history.jsonl").read_text().splitlines()
    assert (recipe["schema"], recipe["backend"], recipe["seed"]) == (1, "torchcnn", 3)
    assert [json.loads(line)["loss"] for line in lines] == [278.8623, 278.8623]


def test_nothing_is_written_before_the_start(tmp_path: Path) -> None:
    RunFolder(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_run_is_not_overwritten(tmp_path: Path, tiny: Dataset) -> None:
    run = RunFolder(tmp_path)
    run.start("torchcnn", Recipe(), tiny)
    RunFolder(tmp_path)  # no epoch of it has ended yet
    run.epoch(EPOCH)
    with pytest.raises(OutputError, match="exists already"):
        RunFolder(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, tiny: Dataset) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/a"):
        RunFolder(tmp_path / "file" / "a").start("torchcnn", Recipe(), tiny)


def test_several_observers_hear_the_same(tiny: Dataset) -> None:
    heard = []

    class Recorder(Observer):
        def start(self, backend: str, recipe: Recipe, dataset: Dataset) -> None:
            heard.append((self, backend, dataset.name))

        def step(self, epoch: int, step: int, steps: int) -> None:
            heard.append((self, epoch, step, steps))

        def epoch(self, record: Epoch) -> None:
            heard.append((self, record))

    a, b = Recorder(), Recorder()
    both = Observers(a, b)
    both.start("jaxcnn", Recipe(), tiny)
    both.step(1, 2, 3)
    both.epoch(EPOCH)
    events = [("jaxcnn", "mnist"), (1, 2, 3), (EPOCH,)]
    assert heard == [(observer, *event) for event in events for observer in (a, b)]
