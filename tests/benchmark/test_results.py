"""The tables in README and docs/results are those of the figures that lie there."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RENDER = runpy.run_path(str(ROOT / "docs/results/render.py"))
FILES = sorted((ROOT / "docs/results").glob("*.json"))


def test_the_tables_are_made_from_the_figures() -> None:
    assert FILES
    assert (ROOT / "docs/results/README.md").read_text() == RENDER["everything"]()
    [block] = re.findall(
        r"<!-- results -->\n(.*?)\n<!-- /results -->", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert block == RENDER["summary"]()


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_every_result_counts_and_says_what_made_it(file: Path) -> None:
    result: dict[str, Any] = json.loads(file.read_text())
    assert result["passed"]
    assert result["rounds"] >= 9
    assert result["command"].startswith("parity bench ")
    assert "/" not in re.sub(r"docs/results/[\w.-]+", "", result["command"])
    assert result["recipe"]["dataset"] == "mnist"
