"""Code in the README is code that runs."""

import inspect
import re
from pathlib import Path

import jaxcnn.steps
import torchcnn.steps
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
