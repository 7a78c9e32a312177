"""What a notebook sees: short texts of results, versions, types, progress, a page of one's own."""

import importlib
import io
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import parity
from parity.benchmark.result import Timed
from parity.contract import SILENT, Dataset, Evaluation, History, Recipe, Split, initial_state
from parity.contract.backend import Backend
from parity.contract.cli import console
from parity.contract.errors import OutputError
from parity.contract.version import __version__
from parity.judge.diagnosis import Diagnosis
from parity.pairs.examples import simple_cnn
from tests.checkpoints import checkpoint
from tests.contract.run.test_history import EPOCH

PACKAGES = ("torchcnn", "jaxcnn", "parity")
RECIPE = Recipe(dataset="digits", epochs=1, batch_size=64, limit=128, device="cpu", mode="eager")
SPLIT = Split(np.zeros((5, 28, 28), np.uint8), np.zeros(5, np.int64))


@pytest.fixture(scope="module")
def verdict() -> parity.Verdict:
    return parity.check(a="numpy", b="numpy", dataset="digits", batch_size=4)


SHORT: dict[str, tuple[Callable[[], Any], str]] = {
    "Recipe": (lambda: Recipe(dataset="digits", lr=0.1), "Recipe(dataset='digits', lr=0.1)"),
    "State": (lambda: initial_state(0), "<State float32, 0 steps made>"),
    "Split": (lambda: SPLIT, "<Split 5 images>"),
    "Dataset": (lambda: Dataset("own", SPLIT, SPLIT), "<Dataset own, 5 + 5 images>"),
    "Checkpoint": (checkpoint, "<Checkpoint "),
    "Evaluation": (
        lambda: Evaluation(loss=0.5, confusion=np.eye(10, dtype=np.int64)),
        "<Evaluation loss 0.5000, accuracy 100.00% of 10 images>",
    ),
    "History": (
        lambda: History(recipe=RECIPE, epochs=[EPOCH], state=initial_state(0)),
        "<History digits, 1 epochs, the last Epoch ",
    ),
    "Pair": (simple_cnn.pair, "<Pair "),
    "Timed": (lambda: Timed(rounds=[{}] * 9), "<Timed 9 rounds>"),
    "Diagnosis": (
        lambda: Diagnosis(subjects={}, environment={}, runs=1, recipe=RECIPE),
        "<Diagnosis of ",
    ),
}


@pytest.mark.parametrize(("make", "begins"), SHORT.values(), ids=SHORT)
def test_a_result_is_a_line_in_a_notebook(make: Callable[[], Any], begins: str) -> None:
    shown = repr(make())
    assert shown.startswith(begins)
    assert len(shown) < 250
    assert "\n" not in shown


def test_a_recipes_text_makes_it_again() -> None:
    recipe = Recipe(dataset="digits", epochs=3, lr=0.5, mode="jit", dtype="float64")
    assert eval(repr(recipe)) == recipe
    assert repr(Recipe()) == "Recipe()"


def test_a_verdict_is_a_line_and_a_page(verdict: parity.Verdict, tmp_path: Path) -> None:
    assert repr(verdict) == f"<Verdict {verdict}>"
    assert len(repr(verdict)) < 250
    parity.write_report(verdict, tmp_path / "page.html")
    parity.write_report(verdict, str(tmp_path / "page.HTM"))
    assert (tmp_path / "page.html").read_text() == (tmp_path / "page.HTM").read_text()
    assert str(verdict) in (tmp_path / "page.html").read_text()


def test_what_is_no_page_is_refused(verdict: Any, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"got .*page\.pdf; name it page\.html"):
        parity.write_report(verdict, tmp_path / "page.pdf")
    anything: Any = initial_state(0)
    with pytest.raises(OutputError, match="State has no page"):
        parity.write_report(anything, tmp_path / "page.html")
    with pytest.raises(OutputError, match=r"cannot write .*none/page\.html"):
        parity.write_report(verdict, tmp_path / "none" / "page.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_say_their_version_and_are_typed(name: str) -> None:
    assert importlib.import_module(name).__version__ == __version__
    assert resources.files(name).joinpath("py.typed").is_file()
    run = [sys.executable, "-m", name, "--version"]
    said = subprocess.run(run, capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == (f"{name} {__version__}\n", "")


def test_what_is_not_python_is_packaged() -> None:
    """Each kind of file that lies in the packages."""
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    for package in PACKAGES:
        for path in (root / package).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert any(path.match(pattern) for pattern in patterns), path


@pytest.mark.parametrize("screen", ["terminal", "notebook", "pipe"])
def test_fit_shows_its_progress_where_someone_looks(
    screen: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()

    def made(**options: Any) -> Console:
        own = Console(**options, file=written, force_terminal=screen == "terminal", width=80)
        own.is_jupyter = screen == "notebook"
        return own

    monkeypatch.setattr(console, "_Console", made)
    monkeypatch.setattr("rich.jupyter.display", lambda _, text: written.write(text))
    backend.fit(RECIPE)
    backend.fit(RECIPE, observer=SILENT)
    shown = re.findall(r"Epoch \d, Loss: \d+\.\d{3}", written.getvalue())
    assert len(shown) == (0 if screen == "pipe" else 1)
