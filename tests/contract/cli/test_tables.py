"""Tables of text."""

import pytest

from parity.contract.cli.tables import aligned


def test_names_are_to_the_left_and_numbers_to_the_right() -> None:
    rows = [("stage", "", "a"), ("relu", "first", "10.5"), ("grad.logits", "x", "exact")]
    assert aligned(rows) == [
        "stage                   a",
        "relu         first   10.5",
        "grad.logits      x  exact",
    ]
    assert aligned(rows, left=3)[1:] == ["relu         first  10.5", "grad.logits  x      exact"]


def test_rows_of_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        aligned([("a", "b"), ("c",)])
