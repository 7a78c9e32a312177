"""What other processes do is seen, and what this one and its own do is not."""

import subprocess
import sys
import time

import pytest

from parity.benchmark import load
from parity.benchmark.load import Others, allowed

LOOP = "import time; end = time.process_time() + {}\nwhile time.process_time() < end: pass"


class Machine:
    """A clock, the work of two cores, and the part of it that is one's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = load._Seen(0.0, 0.0, 0.0)
        monkeypatch.setattr(load, "_seen", lambda: self.now)

    def passes(self, seconds: float, *, others: float, own: float) -> None:
        at, busy, mine = self.now
        self.now = load._Seen(at + seconds, busy + seconds * (others + own), mine + seconds * own)


@pytest.mark.parametrize(("others", "own"), [(0.0, 2.0), (0.9, 1.1), (2.0, 0.0)])
def test_others_are_all_but_oneself(
    others: float, own: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    measured = Others()
    assert measured.cores() is None  # nothing has happened
    machine.passes(5.0, others=others, own=own)
    assert measured.cores() == pytest.approx(others)


def test_the_kernels_figures_count_the_work_of_oneself_and_of_children() -> None:
    before = load._seen()
    subprocess.run([sys.executable, "-c", LOOP.format(0.3)], check=True)
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    after = load._seen()
    assert after.own - before.own >= 0.55
    assert after.busy - before.busy >= 0.5  # in ticks of the kernel
    assert after.at > before.at


def test_what_is_left_for_others() -> None:
    assert [allowed(cores, 2) for cores in (1, 2, 3)] == [load.IDLE] * 3
    assert allowed(64, 2) == pytest.approx(load.IDLE + 30.5)
