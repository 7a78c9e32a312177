"""The list of the slow tests."""

import re
from pathlib import Path

import pytest

from tests.conftest import SLOW


@pytest.mark.parametrize("name", sorted({name.partition("[")[0] for name in SLOW}))
def test_a_slow_test_is_there(name: str) -> None:
    """One that has been renamed would be run by `make test`."""
    file, _, function = name.partition("::")
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    assert re.search(rf"def {function.rpartition('::')[2]}\(", text)
