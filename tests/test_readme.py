"""Code in the README is code that runs."""

import inspect
import re
from pathlib import Path

import jaxcnn.steps
import torchcnn.steps

README = Path(__file__).parents[1] / "README.md"


def test_the_two_training_steps_are_those_of_the_packages() -> None:
    shown = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert shown[:2] == [
        inspect.getsource(step) for step in (torchcnn.steps.train_step, jaxcnn.steps.train_step)
    ]
