"""When and by what a result was made."""

import datetime as dt

import pytest

from parity.contract.version import provenance


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/bin/parity", "check", "--b", "jax jit"], "parity check --b 'jax jit'"),
        (["/site/jaxcnn/__main__.py", "train"], "jaxcnn train"),
        (["/usr/bin/pytest", "-q"], "called from Python"),
        (["ipykernel_launcher.py", "-f", "kernel.json"], "called from Python"),
        ([""], "called from Python"),
    ],
)
def test_a_result_says_when_and_by_what_it_was_made(
    argv: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", argv)
    made = provenance()
    date = dt.datetime.strptime(made["date"], "%Y-%m-%d %H:%M UTC").replace(tzinfo=dt.UTC)
    assert abs(dt.datetime.now(dt.UTC) - date) < dt.timedelta(minutes=2)
    assert made["command"] == command
