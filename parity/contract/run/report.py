"""A training as one HTML page that needs nothing else: no network, no script."""

from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from jaxtyping import Float, UInt8

from parity.contract.data.datasets import Dataset
from parity.contract.errors import OutputError, os_errors_as
from parity.contract.files import is_special, require_page
from parity.contract.recipe import Recipe
from parity.contract.run import pictures
from parity.contract.run.history import BAND, TUTORIAL, History
from parity.contract.run.observers import Observer
from parity.contract.version import provenance

WORST = 12
"""How many mistakes are shown."""


class Mistake(NamedTuple):
    """A test image that is classified wrong."""

    place: int
    image: UInt8[np.ndarray, "28 28"]
    label: int
    probabilities: Float[np.ndarray, "10"]

    @property
    def most(self) -> list[tuple[int, float]]:
        """The three most probable digits, and their probabilities."""
        digits = np.argsort(-self.probabilities, kind="stable")[:3]
        return [(int(digit), float(self.probabilities[digit])) for digit in digits]


class Witness(Observer):
    """Keeps who trains on what, for the page."""

    backend: str
    dataset: Dataset

    def start(self, backend: str, recipe: Recipe, dataset: Dataset) -> None:
        self.backend, self.dataset = backend, dataset


def require_writable(file: Path) -> None:
    """Raise OutputError, before a training, unless its page can be written afterwards."""
    require_page(file)
    if is_special(file):
        return
    with os_errors_as(OutputError, f"cannot write {file}", "; give --report another file"):
        existed = file.exists()
        file.open("ab").close()
        if not existed:
            file.unlink()


def templates(folder: Path) -> jinja2.Environment:
    """Return the pages of a folder: what is put into them is escaped, and must be there."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def training_page(
    history: History,
    seen: Witness,
    probabilities: Float[np.ndarray, "tests 10"],
    versions: dict[str, str],
) -> str:
    """Return a page for a training, with what it says of each test image."""
    test, predicted = seen.dataset.test, probabilities.argmax(axis=1)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (test.labels, predicted), 1)
    wrong = np.flatnonzero(predicted != test.labels)
    worst = wrong[np.argsort(probabilities[wrong, test.labels[wrong]], kind="stable")][:WORST]
    mistakes = [
        Mistake(int(i), test.images[i], int(test.labels[i]), probabilities[i]) for i in worst
    ]
    environment = templates(Path(__file__).parent)
    like = history.like_tutorial
    losses, accuracies = pictures.panels(history.epochs, like_tutorial=like)
    return environment.get_template("report.html").render(
        backend=seen.backend,
        dataset=seen.dataset,
        recipe=history.recipe,
        epochs=history.epochs,
        tutorial=list(zip(TUTORIAL, BAND, strict=True)) if like else [],
        confusion=confusion.tolist(),
        most=int((confusion * (1 - np.eye(10, dtype=int))).max()),
        mistakes=mistakes,
        wrong=len(wrong),
        image_uri=pictures.image_uri,
        losses=pictures.figure_uri(losses),
        accuracies=pictures.figure_uri(accuracies),
        filters=pictures.figure_uri(pictures.filters(history.state.params["conv1.weight"])),
        seconds=sum(epoch.seconds for epoch in history.epochs),
        versions=versions,
        made=provenance(),
    )
