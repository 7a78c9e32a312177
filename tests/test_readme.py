"""Code in the README is code that runs."""

import importlib
import inspect
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import jaxcnn.steps
import parity
import torchcnn.steps
from parity.contract.data.datasets import digits
from parity.pairs.examples import two_mistakes
from parity.pairs.judging import prove

README = Path(__file__).parents[1] / "README.md"


def test_the_two_training_steps_are_those_of_the_packages() -> None:
    shown = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert shown[:2] == [
        inspect.getsource(step) for step in (torchcnn.steps.train_step, jaxcnn.steps.train_step)
    ]


def test_the_first_screen_shows_what_is_proved_of_the_example() -> None:
    (shown,) = re.findall(
        r"parity.pairs.examples.two_mistakes\n(.*?)```", README.read_text(), re.DOTALL
    )
    proof = prove(two_mistakes.pair())

    def without_rounding(text: str) -> str:
        return re.sub(r"rounding: \S+", "", text).strip()

    assert without_rounding(shown) == without_rounding(f"{proof.table()}\n{proof}")


@pytest.mark.parametrize("program", ["torchcnn", "jaxcnn"])
def test_images_of_ones_own_are_trained_on_as_it_says(program: str) -> None:
    shown = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    [code] = [code for code in shown if "def train_on" in code]
    names: dict[str, Any] = {}
    exec(code.replace("jaxcnn", program), names)
    train, test = digits().first(300).train, digits().test
    accuracy, probabilities = names["train_on"](
        train.images, train.labels, test.images, test.labels
    )
    assert probabilities.shape == (360, 10)
    assert (probabilities.argmax(1) == test.labels).mean() == accuracy > 0.5


COMMAND = r"^\.venv/bin/(?!pip |torchrun )(.*?) *(?:#.*)?$"
EAGER = "--mode eager --dtype float64 --limit 1000 --epochs 1"
SHORTER = {
    "torchcnn train": "--dataset digits --limit 64 --epochs 1",
    "jaxcnn train --dataset digits": "--limit 64 --epochs 1",
    f"jaxcnn train {EAGER}": "--dataset digits --limit 64",
    "jaxcnn train --report train.html --tensorboard runs/board": (
        "--dataset digits --limit 64 --epochs 1"
    ),
    "torchcnn train --seed 7 --out runs/seed7": "--dataset digits --limit 64 --epochs 1",
    "jaxcnn train --resume runs/seed7 --epochs 11": "--epochs 2",
    "parity check --a torch:eager --b jax:jit --dataset digits": "--a numpy --b numpy",
    "parity train --a torch:eager --b jax:jit --dataset digits": "--steps 2",
}
"""What is added to a command to make it short."""


def blocks() -> list[tuple[str, str]]:
    """Return language and text of each block but the two steps, in order."""
    text = README.read_text(encoding="utf-8")
    every = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in every if not text.startswith("def train_step")]


def test_the_blocks_run_from_top_to_bottom_in_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each in turn, made short by SHORTER; instead of being timed, arms have earlier figures.

    Several processes have tests of their own (`tests/backends/test_parallel.py`).
    """
    measured = runpy.run_path(str(README.parent / "benchmarks/render.py"))["read_csv"]
    [figures, *_] = measured(README.parent / "benchmarks/epyc-2-cores.csv").values()
    monkeypatch.setattr(parity, "bench", lambda **_: figures, raising=False)
    monkeypatch.chdir(tmp_path)
    used = []
    for language, text in blocks():
        if language == "python":
            exec(text.replace("epochs=3", "epochs=1, limit=64"), {})
        for line in re.findall(COMMAND, text, re.MULTILINE):
            used.append(line)
            program, *arguments = shlex.split(f"{line} {SHORTER.get(line, '')}")
            main = importlib.import_module(f"{program}.__main__")
            monkeypatch.setattr(main, "exit_on_interrupt", lambda: None)
            monkeypatch.setattr(main, "plain_convolutions", lambda: None)
            if hasattr(main, "bind_threads"):
                monkeypatch.setattr(main, "bind_threads", lambda: None)
            monkeypatch.setattr(sys, "argv", [program, *arguments])
            try:
                status = main.main()
            except SystemExit as end:  # of --help
                status = end.code
            assert (status or 0, line) == (0, line), capsys.readouterr().err
    assert set(SHORTER) <= set(used)
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {
        "runs", "train.html", "digit.png", "cnn.pt", "cnn", "bench.json", "bench.html",
    }  # fmt: skip
