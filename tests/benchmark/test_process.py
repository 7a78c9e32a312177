"""A function in a process of its own: what it finds there, how it ends; nothing is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from parity.benchmark.process import ProcessLostError, call


def test_a_process_has_the_threads_and_cores_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert call(os.getenv, "OMP_NUM_THREADS", threads=1) == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    if hasattr(os, "sched_getaffinity"):
        assert len(call(os.sched_getaffinity, 0, threads=1)) == 1


def test_each_process_has_a_folder_of_its_own_for_what_is_compiled() -> None:
    folders = {call(os.getenv, "TORCHINDUCTOR_CACHE_DIR", threads=1) for _ in range(2)}
    assert len(folders) == 2
    assert not any(Path(str(folder)).parent.exists() for folder in folders)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are bound on Linux only")
def test_threads_are_bound_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("OMP_", "GOMP_", "KMP_"))]:
        monkeypatch.delenv(name)
    assert call(os.getenv, "OMP_PROC_BIND", threads=1, bind=True) == "close"
    assert call(os.getenv, "OMP_PROC_BIND", threads=1) is None


ENDS = {
    "an exception": ((int, "seven"), "ended with status 1: ValueError: invalid literal"),
    "a message": ((sys.exit, "enough"), "ended with status 1: enough"),
    "a status": ((os._exit, 3), "ended with status 3"),
    "a signal": ((signal.raise_signal, 9), "was killed by signal 9"),
}


@pytest.mark.parametrize(("function", "why"), ENDS.values(), ids=ENDS)
def test_how_a_process_ended_is_said_and_nothing_is_printed(
    function: tuple, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ProcessLostError, match=f"its process {why}"):
        call(*function, threads=1)
    assert capfd.readouterr() == ("", "")


def test_what_a_process_prints_is_not_seen(capfd: pytest.CaptureFixture[str]) -> None:
    call(print, "here", threads=1)
    call(os.write, 1, b"here", threads=1)
    assert capfd.readouterr() == ("", "")


UNGUARDED = """
import os, time
from parity.benchmark.process import call
from parity.contract.interrupts import cleaning_up, exit_on_interrupt
exit_on_interrupt()
with cleaning_up():
    print(call(os.getppid, threads=1), flush=True)
    call(time.sleep, 600, threads=1)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_process_ends_with_a_program_that_needs_no_guard(number: int) -> None:
    """The program has no `if __name__ == "__main__"`, and comes from standard input."""
    program = subprocess.Popen(
        [sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(UNGUARDED)
    program.stdin.close()
    assert int(program.stdout.readline()) == program.pid
    own = psutil.Process(program.pid)
    while not (sleeping := [child for child in own.children() if _is_called(child)]):
        time.sleep(0.05)
    program.send_signal(number)
    program.wait(timeout=30)
    program.stdout.close()
    _, left = psutil.wait_procs(sleeping, timeout=30)
    for process in left:
        process.kill()
    assert left == []


def _is_called(child: psutil.Process) -> bool:
    return "spawn_main" in " ".join(child.cmdline())
