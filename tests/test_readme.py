"""Code in the README is code that runs."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import jaxcnn.steps
import torchcnn.steps
from parity.contract.data.datasets import digits
from parity.examples import two_mistakes
from parity.pairs.judging import prove

README = Path(__file__).parents[1] / "README.md"


def test_the_two_training_steps_are_those_of_the_packages() -> None:
    shown = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert shown[:2] == [
        inspect.getsource(step) for step in (torchcnn.steps.train_step, jaxcnn.steps.train_step)
    ]


def test_the_first_screen_shows_what_is_proved_of_the_example() -> None:
    (shown,) = re.findall(r"parity.examples.two_mistakes\n(.*?)```", README.read_text(), re.DOTALL)
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
