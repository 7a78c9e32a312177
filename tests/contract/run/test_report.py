"""A training's page, its events for TensorBoard, and how a history shows itself in a notebook."""

import importlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from parity.contract.backend import Backend
from parity.contract.cli.programs import main
from parity.contract.data.datasets import digits
from parity.contract.recipe import Recipe
from parity.contract.run.history import BAND, TUTORIAL, Epoch, History
from parity.contract.run.report import WORST, Witness, training_page
from parity.contract.state import initial_state
from tests.checkpoints import record

TRAIN = ["train", "--dataset", "digits", "--epochs", "2", "--device", "cpu", "--quiet"]


class Page(HTMLParser):
    """Which tags are open, the text, and where pictures come from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words, self.sources, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        values = dict(attrs)
        self.sources += [values["src"]] if "src" in values else []
        self.links += [values["href"]] if "href" in values else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def history(recipe: Recipe, epochs: list[Epoch]) -> History:
    return History(recipe=recipe, epochs=epochs, state=initial_state(0))


def page_of(recipe: Recipe, probabilities: np.ndarray) -> Page:
    seen = Witness()
    seen.start("torchcnn", recipe, digits())
    made = history(recipe, [record(1), record(2)])
    return Page(training_page(made, seen, probabilities, {"numpy": "2"}))


def certain(labels: np.ndarray) -> np.ndarray:
    return np.eye(10)[labels]


def test_train_writes_a_page_that_needs_nothing_else(backend: Backend, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    assert main(backend, "", [*TRAIN, "--report", str(file)]) == 0
    page = Page(file.read_text())
    assert page.open == page.links == []
    assert all(source.startswith("data:image/") for source in page.sources)
    text = " ".join(page.words)
    assert f"{backend.__name__} train: digits, cpu" in text
    assert "% of 360 test images" in text
    assert len(page.sources) == WORST + 3


def test_the_worst_mistakes_and_the_confusions_are_those_of_the_probabilities() -> None:
    labels = digits().test.labels
    said = labels.copy()
    said[[5, 9]] = (labels[[5, 9]] + 1) % 10
    probabilities = certain(said)
    probabilities[9, labels[9]] = 0.25  # so that image 5 is the worse one
    page = page_of(Recipe(dataset="digits"), probabilities)
    text = " ".join(page.words)
    assert re.findall(r"image (\d+):", text) == ["5", "9"]
    assert "2 of 360 are wrong" in text
    assert "99.44 % of 360" in text
    assert len(page.sources) == 2 + 3


def test_a_network_without_mistakes_has_none() -> None:
    page = page_of(Recipe(dataset="digits"), certain(digits().test.labels))
    assert "0 of 360 are wrong." in " ".join(page.words)
    assert len(page.sources) == 3


@pytest.mark.parametrize(
    ("recipe", "beside"),
    [
        (Recipe(), True),
        (Recipe(dataset="digits"), False),
        (Recipe(batch_size=32), False),
        (Recipe(limit=100), False),
        (Recipe(lr=0.01), False),
    ],
)
def test_the_tutorials_losses_stand_beside_its_own_recipe_only(
    recipe: Recipe, beside: bool
) -> None:
    text = " ".join(page_of(recipe, certain(digits().test.labels)).words)
    assert ("278.862" in text.replace("278.862", "", 2)) == beside  # both records have it too
    assert ("107.1 ± 7.3" in text) == beside


def test_the_band_holds_the_tutorial() -> None:
    for printed, (mean, spread) in zip(TUTORIAL, BAND, strict=True):
        assert abs(printed - mean) < 2 * spread


@pytest.mark.parametrize("program", ["torchcnn", "jaxcnn"])
def test_a_page_that_cannot_be_written_is_refused_before_the_training(
    program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend: Any = importlib.import_module(program)
    assert main(backend, "", [*TRAIN, "--report", str(tmp_path / "gone" / "page.html")]) == 2
    error = capsys.readouterr().err
    assert "give --report another file" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_history_shows_itself_in_a_notebook() -> None:
    shown = history(Recipe(), [record(1), record(2)])
    assert isinstance(shown.plot(), Figure)
    page = Page(shown._repr_html_())
    assert page.sources[0].startswith("data:image/png;base64,")
    assert "".join(page.words) == f"{record(1)}\n{record(2)}"


def events(folder: Path) -> list[Any]:
    """Return TensorBoard's events: records of a length, its checksum, the event, its checksum."""
    events = importlib.import_module("tensorboardX.proto.event_pb2")
    [file] = folder.iterdir()
    content, place, found = file.read_bytes(), 0, []
    while place < len(content):
        size = int.from_bytes(content[place : place + 8], "little")
        event = events.Event()
        event.ParseFromString(content[place + 12 : place + 12 + size])
        found.append(event)
        place += 16 + size
    return found


def test_both_programs_write_the_same_tags(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="of the package's dependencies; make test")
    scalars = []
    for program in ("torchcnn", "jaxcnn"):
        backend: Any = importlib.import_module(program)
        folder = tmp_path / program
        options = ["--tensorboard", str(folder), "--dtype", "float64"]
        assert main(backend, "", [*TRAIN, *options]) == 0
        values = [(e.step, v) for e in events(folder) for v in e.summary.value]
        scalars.append({(v.tag, step): v.simple_value for step, v in values if v.simple_value})
    assert {tag for tag, _ in scalars[0]} == {
        "loss/train", "loss/test", "accuracy/test", "seconds/epoch"
    }  # fmt: skip
    assert {step for _, step in scalars[0]} == {1, 2}
    assert scalars[0].keys() == scalars[1].keys()
    for key in scalars[0]:
        if not key[0].startswith("seconds"):
            assert scalars[0][key] == pytest.approx(scalars[1][key], rel=1e-6)
