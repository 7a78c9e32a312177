"""The dictionary's page holds what `parity.prove` says of its entries."""

from importlib import import_module

import pytest

from docs.dictionary import COLUMNS, GROUPS, PAGE, VERDICTS, entries, head, row

ALL = [one for name in GROUPS for one in entries(import_module(f"docs.entries.{name}"))]
LINES = PAGE.read_text().splitlines()
SAMPLE = [n for n, (entry, _) in enumerate(ALL) if n % 24 == 3 or entry.name == "exponential"]
"""Rates that Optax computes in float32 are nearest to what is allowed where they are powers."""
ROWS = [line for line in LINES if line.startswith("| ") and line not in COLUMNS]


def test_each_entry_has_its_row_in_their_order() -> None:
    assert [line.split(" | ")[0] for line in ROWS] == [f"| {entry.name}" for entry, _ in ALL]


def test_the_head_counts_the_rows() -> None:
    assert "\n".join(LINES).startswith(head(ROWS).split(" with torch ")[0])
    assert all(any(f" | {verdict}" in line for line in ROWS) for verdict in VERDICTS)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("number", SAMPLE, ids=lambda n: ALL[n][0].name)
def test_a_row_is_what_is_proved(number: int) -> None:
    """A sample, since all take minutes: `make dictionary` writes the whole page anew."""
    assert row(*ALL[number]) == ROWS[number]
