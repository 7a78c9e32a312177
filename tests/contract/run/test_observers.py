"""The folder of a run: what it holds, when it is written, and whose it is."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parity.contract.data.datasets import Dataset
from parity.contract.errors import DivergenceError, OutputError, StoppedError
from parity.contract.recipe import Recipe
from parity.contract.run import observers
from parity.contract.run.checkpoint import CHECKPOINT_FILE, read_checkpoint, write_checkpoint
from parity.contract.run.history import Epoch, Evaluation
from parity.contract.run.observers import Observer, Observers, RunFolder
from parity.contract.run.progress import Progress
from parity.contract.state import State, initial_state
from tests.contract.run.test_history import EPOCH

RECIPE = Recipe(seed=3, epochs=2, batch_size=16)
"""An epoch of the tiny data set has three batches."""

VERSIONS = {"numpy": "2.0.0"}
TEST = Evaluation(loss=1.0, confusion=np.eye(10, dtype=np.int64))


def state(step: int) -> State:
    return State(**{**vars(initial_state(3)), "step": step})


def train(
    folder: RunFolder, data: Dataset, then: Callable[[int], None] = lambda step: None
) -> list[int]:
    """Walk through a training without computing; return the steps at which a checkpoint changed."""
    progress, saved, path = Progress(RECIPE, data, None), [], Path()

    def paused() -> None:
        nonlocal path
        before = path.read_bytes() if path.is_file() else b""
        folder.paused(progress, state(progress.step))
        path = next(folder._folder.glob(CHECKPOINT_FILE))
        if path.read_bytes() != before:
            saved.append(progress.step)

    folder.start("torchcnn", RECIPE, data)
    paused()
    for _ in range(RECIPE.epochs):
        for chunk in progress.chunks(folder.every):
            progress.add(np.ones(len(chunk)), state(progress.step))
            then(progress.step)
            paused()
        folder.epoch(progress.end_epoch(TEST, seconds=0.1))
        paused()
    return saved


def test_a_run_folder_gets_the_recipe_and_a_line_an_epoch(tmp_path: Path, tiny: Dataset) -> None:
    train(RunFolder(tmp_path / "runs" / "a", versions=VERSIONS), tiny)
    recipe = json.loads((tmp_path / "runs/a/recipe.json").read_text())
    lines = (tmp_path / "runs/a/history.jsonl").read_text().splitlines()
    assert (recipe["schema"], recipe["backend"], recipe["seed"]) == (1, "torchcnn", 3)
    assert [(json.loads(line)["epoch"], json.loads(line)["loss"]) for line in lines] == [
        (1, 3.0),
        (2, 3.0),
    ]


@pytest.mark.parametrize(
    ("every", "steps"),
    [(None, [0, 3, 6]), (1, [0, 1, 2, 3, 3, 4, 5, 6, 6]), (2, [0, 2, 3, 4, 6, 6])],
)
def test_the_checkpoint_is_written_first_after_each_epoch_and_every_so_many_steps(
    every: int | None, steps: list[int], tmp_path: Path, tiny: Dataset
) -> None:
    assert train(RunFolder(tmp_path, versions=VERSIONS, every=every), tiny) == steps
    last = read_checkpoint(tmp_path)
    assert (last.epoch, last.batch, last.loss_sum, last.state.step) == (3, 0, 0.0, 6)
    assert (last.backend, last.versions, last.dataset_sha256) == ("torchcnn", VERSIONS, tiny.sha256)
    assert [record.loss for record in last.epochs] == [3.0, 3.0]


def test_a_run_that_is_asked_to_stop_saves_and_says_where_it_stands(
    tmp_path: Path, tiny: Dataset
) -> None:
    folder = RunFolder(tmp_path, versions=VERSIONS, every=1)

    def ask(step: int) -> None:
        if step == 5:
            folder.stop(signal.SIGTERM, None)

    with pytest.raises(
        StoppedError, match=r"stopped after step 5 \(epoch 2, batch 2 of 3\)"
    ) as end:
        train(folder, tiny, ask)
    assert end.value.exit_code == 143
    saved = read_checkpoint(tmp_path)
    assert (saved.epoch, saved.batch, saved.loss_sum) == (2, 2, 2.0)


def test_a_signal_in_the_middle_of_a_look_does_not_stop_before_the_state_is_saved(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Progress(RECIPE, tiny, None)
    folder = RunFolder(tmp_path, versions=VERSIONS, every=2)
    folder.start("torchcnn", RECIPE, tiny)
    folder.paused(progress, state(0))

    def save(*args: object) -> None:
        write_checkpoint(*args)  # pyright: ignore[reportArgumentType]
        folder.stop(signal.SIGTERM, None)

    progress.add(np.ones(1), state(1))
    folder.paused(progress, state(1))
    progress.add(np.ones(1), state(2))
    with monkeypatch.context() as patch:
        patch.setattr(observers, "write_checkpoint", save)
        folder.paused(progress, state(2))
    progress.add(np.ones(1), state(3))
    with pytest.raises(StoppedError, match="after step 3"):
        folder.paused(progress, state(3))
    assert read_checkpoint(tmp_path).state.step == 3


def test_a_state_that_is_not_finite_does_not_replace_the_last_good_one(
    tmp_path: Path, tiny: Dataset
) -> None:
    folder, progress = RunFolder(tmp_path, versions=VERSIONS), Progress(RECIPE, tiny, None)
    folder.start("torchcnn", RECIPE, tiny)
    folder.paused(progress, state(0))
    before = (tmp_path / CHECKPOINT_FILE).read_bytes()
    bad = state(3)
    bad.params["fc1.bias"][3] = np.inf
    with pytest.raises(DivergenceError, match=r"params.fc1.bias is not finite after step 3"):
        progress.add(np.ones(3), bad)
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == before


def test_nothing_is_written_before_the_start(tmp_path: Path) -> None:
    RunFolder(tmp_path / "a", versions=VERSIONS)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_run_is_not_overwritten(tmp_path: Path, tiny: Dataset) -> None:
    before = RunFolder(tmp_path, versions=VERSIONS)
    before.start("torchcnn", RECIPE, tiny)
    before.release()
    run = RunFolder(tmp_path, versions=VERSIONS)  # nothing is lost yet
    run.start("torchcnn", RECIPE, tiny)
    run.paused(Progress(RECIPE, tiny, None), state(0))
    run.release()
    with pytest.raises(OutputError, match="exists already"):
        RunFolder(tmp_path, versions=VERSIONS)
    RunFolder(tmp_path, versions=VERSIONS, resuming=True)


def test_what_was_written_after_the_last_checkpoint_is_written_again(
    tmp_path: Path, tiny: Dataset
) -> None:
    train(RunFolder(tmp_path, versions=VERSIONS), tiny)
    history = tmp_path / "history.jsonl"
    whole = history.read_text()
    history.write_text(whole + whole)
    continued(tmp_path, "jaxcnn", replace(RECIPE, epochs=3), tiny)
    assert history.read_text() == whole


def continued(folder: Path, backend: str, recipe: Recipe, data: Dataset) -> None:
    """Continue a run and stop at once."""
    start, run = read_checkpoint(folder), RunFolder(folder, versions=VERSIONS, resuming=True)
    run.start(backend, recipe, data)
    run.paused(Progress(recipe, data, start), start.state)
    run.release()


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, tiny: Dataset) -> None:
    train(RunFolder(tmp_path, versions=VERSIONS), tiny)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    continued(tmp_path, "jaxcnn", RECIPE, tiny)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    assert after == before


def made(folder: Path) -> list[tuple[int, str]]:
    entries = json.loads((folder / "recipe.json").read_text())["made"]
    return [(entry["from_step"], entry["backend"]) for entry in entries]


def test_the_folder_says_who_made_which_steps(tmp_path: Path, tiny: Dataset) -> None:
    train(RunFolder(tmp_path, versions=VERSIONS), tiny)
    assert made(tmp_path) == [(1, "torchcnn")]
    longer = replace(RECIPE, epochs=3)
    continued(tmp_path, "torchcnn", longer, tiny)  # as before
    assert made(tmp_path) == [(1, "torchcnn")]
    for backend in ("jaxcnn", "another", "jaxcnn"):  # of which only the last may make a step
        continued(tmp_path, backend, longer, tiny)
        assert made(tmp_path) == [(1, "torchcnn"), (7, backend)]
    continued(tmp_path, "jaxcnn", replace(longer, mode="eager"), tiny)
    entry = json.loads((tmp_path / "recipe.json").read_text())["made"][-1]
    assert (entry["mode"], entry["versions"]) == ("eager", VERSIONS)


def test_a_damaged_recipe_is_no_history(tmp_path: Path, tiny: Dataset) -> None:
    train(RunFolder(tmp_path, versions=VERSIONS), tiny)
    for content in ("{", "[]", '{"made": [{}]}'):
        (tmp_path / "recipe.json").write_text(content)
        with pytest.raises(OutputError, match=r"recipe.json is damaged; remove it"):
            continued(tmp_path, "jaxcnn", replace(RECIPE, epochs=3), tiny)


@pytest.mark.parametrize("resuming", [False, True])
def test_two_trainings_do_not_share_a_folder(resuming: bool, tmp_path: Path, tiny: Dataset) -> None:
    first, second = (RunFolder(tmp_path / "a", versions=VERSIONS) for _ in range(2))
    first.start("torchcnn", RECIPE, tiny)
    with pytest.raises(OutputError, match=r"another training is writing to .*a; wait"):
        second.start("jaxcnn", RECIPE, tiny)  # it began before the folder was there
    with pytest.raises(OutputError, match=r"another training is writing to .*a; wait"):
        RunFolder(tmp_path / "a", versions=VERSIONS, resuming=resuming)
    first.paused(Progress(RECIPE, tiny, None), state(0))
    first.release()
    with pytest.raises(OutputError, match="exists already"):
        second.start("jaxcnn", RECIPE, tiny)
    second.release()
    RunFolder(tmp_path / "a", versions=VERSIONS, resuming=True)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, tiny: Dataset) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/a"):
        RunFolder(tmp_path / "file" / "a", versions=VERSIONS).start("torchcnn", RECIPE, tiny)


def test_several_observers_hear_the_same(tiny: Dataset) -> None:
    heard = []

    class Recorder(Observer):
        def start(self, backend: str, recipe: Recipe, dataset: Dataset) -> None:
            heard.append((self, backend, dataset.name))

        def paused(self, progress: Progress, state: State) -> None:
            heard.append((self, progress.step, state.step))

        def epoch(self, record: Epoch) -> None:
            heard.append((self, record))

    a, b = Recorder(), Recorder()
    b.every = 7
    both = Observers(a, b)
    both.start("jaxcnn", RECIPE, tiny)
    both.paused(Progress(RECIPE, tiny, None), state(5))
    both.epoch(EPOCH)
    events = [("jaxcnn", "mnist"), (0, 5), (EPOCH,)]
    assert heard == [(observer, *event) for event in events for observer in (a, b)]
    assert both.every == 7
