"""Where processes meet: who has not come is named, and who ends takes the others along."""

import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from parity.contract.errors import ProcessError, RecipeError
from parity.contract.processes import Processes
from parity.contract.rollcall import meet


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def of(port: int, count: int, index: int, *, wait: int = 5) -> Processes:
    where = f"127.0.0.1:{port}"
    return Processes(coordinator=where, processes=count, process_id=index, wait=wait)


def meeting(*them: Processes, program: str = "torchcnn") -> list[str]:
    """Return where each is to meet, or what it is told."""

    def one(processes: Processes) -> str:
        try:
            found = meet(program, processes)
        except ProcessError as error:
            return str(error)
        for peer in found.peers.values():
            peer.close()
        return found.address

    with ThreadPoolExecutor(len(them)) as threads:
        return list(threads.map(one, them))


def test_all_learn_the_same_free_address_in_whatever_order_they_come() -> None:
    port = free_port()
    addresses = meeting(*(of(port, 3, index) for index in (2, 1, 0)))
    assert len(set(addresses)) == 1
    assert addresses[0].startswith("127.0.0.1:")
    assert addresses[0] != f"127.0.0.1:{port}"


def test_who_does_not_come_is_named_by_number() -> None:
    port = free_port()
    said = meeting(of(port, 4, 0, wait=1), of(port, 4, 2))
    assert len(set(said)) == 1
    assert "processes 1, 3 of 4 did not come to 127.0.0.1" in said[0]
    assert "process 0 of 2 did not come" in meeting(of(free_port(), 2, 1, wait=1))[0]


def test_another_number_of_processes_and_a_number_twice_are_refused() -> None:
    port = free_port()
    said = meeting(of(port, 2, 0), of(port, 3, 1))
    assert set(said) == {"process 1 has --processes 3, process 0 has 2"}
    port = free_port()
    assert "two processes have --process-id 1" in meeting(*(of(port, 3, i) for i in (0, 1, 1)))


def test_a_port_in_use_and_an_unknown_host_are_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = meeting(of(server.getsockname()[1], 2, 0))[0]
        assert "the port is in use" in said
    nowhere = Processes(coordinator="no.such.host.invalid:1", processes=2, process_id=1, wait=1)
    assert "no.such.host.invalid:1" in meeting(nowhere)[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"process_id": 1}, "process_id needs coordinator"),
        ({"coordinator": "a:1"}, "coordinator needs processes and process_id"),
        ({"coordinator": "a:1", "processes": 2, "process_id": 2}, "must be below processes, 2"),
        ({"coordinator": "a", "processes": 2, "process_id": 1}, "must be HOST:PORT"),
        ({"coordinator": "a:99999", "processes": 2, "process_id": 1}, "must be HOST:PORT"),
        ({"devices": 0}, "devices must be an integer of at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Processes(**options)  # pyright: ignore[reportArgumentType]


MEMBER = """
import sys, time
from parity.contract.processes import Processes
from parity.contract.rollcall import meet
from parity.contract.errors import DataError
where, index, fails = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
with meet("torchcnn", Processes(coordinator=where, processes=3, process_id=index)).watching():
    print("met", flush=True)
    if fails:
        time.sleep(1)
        raise DataError("mnist is not there")
    time.sleep(60)
"""


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("killed", [True, False])
def test_whoever_ends_takes_the_others_along_and_is_named(victim: int, killed: bool) -> None:
    where, members = f"127.0.0.1:{free_port()}", []
    for index in range(3):
        fails = ["fails"] * (not killed and index == victim)
        command = [sys.executable, "-c", MEMBER, where, str(index), *fails]
        members.append(subprocess.Popen(command, stdout=-1, stderr=-1, text=True))
    for member in members:
        assert member.stdout
        assert member.stdout.readline() == "met\n"
    if killed:
        members[victim].kill()
    started = time.monotonic()
    for index, member in enumerate(members):
        _, said = member.communicate(timeout=30)
        if index != victim:
            assert member.returncode == 2
            assert said.startswith(f"torchcnn: error: process {victim} of 3 has ended")
            assert said.count("\n") == 1
            assert killed or "mnist is not there" in said
    assert time.monotonic() - started < 10
    socket.create_server(("127.0.0.1", int(where.partition(":")[2]))).close()
