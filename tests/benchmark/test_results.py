"""The tables in README and benchmarks are those of the figures beside them."""

import json
import re
import runpy
from pathlib import Path

import pytest

from parity.benchmark.result import Benchmark
from parity.contract.files import to_json

ROOT = Path(__file__).parents[2]
RENDER = runpy.run_path(str(ROOT / "benchmarks/render.py"))
MACHINES = sorted((ROOT / "benchmarks").glob("*.csv"))
RUNS = {
    f"{machine.stem}, {name}": found
    for machine in MACHINES
    for name, found in RENDER["read_csv"](machine).items()
}


def test_the_tables_are_made_from_the_figures() -> None:
    assert (ROOT / "benchmarks/README.md").read_text() == RENDER["everything"]()
    [block] = re.findall(
        r"<!-- results -->\n(.*?)\n<!-- /results -->", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert block == RENDER["summary"]()


@pytest.mark.parametrize("found", RUNS.values(), ids=RUNS)
def test_every_run_counts_and_says_what_made_it(found: Benchmark) -> None:
    assert found.passed
    assert found.rounds >= 6  # of fewer no interval holds the median with 95 % confidence
    for arms in found.timed.values():
        assert set(arms) >= {*found.arms, found.again}
        assert all(len(timed.rounds) == found.rounds for timed in arms.values())
    assert found.command.startswith("parity bench ")
    assert "/" not in found.command
    assert found.recipe.dataset == "mnist"


@pytest.mark.parametrize("machine", MACHINES, ids=[machine.stem for machine in MACHINES])
def test_a_table_is_what_the_json_of_its_runs_gives(machine: Path, tmp_path: Path) -> None:
    runs = {
        name: json.loads(json.dumps(to_json(found)))
        for name, found in RENDER["read_csv"](machine).items()
    }
    again = tmp_path / machine.name
    RENDER["write_csv"](again, runs)
    assert again.read_text() == machine.read_text()


def test_a_run_in_which_an_arm_does_not_count_makes_no_table(tmp_path: Path) -> None:
    table = tmp_path / "machine.csv"
    with pytest.raises(SystemExit, match="does not count: jax:jit"):
        RENDER["write_csv"](table, {"run": {"failed": ["jax:jit, batches of 64: killed"]}})
    assert not table.exists()
