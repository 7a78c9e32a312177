"""Where the processes of a training meet, and notice that one of them has ended.

Process 0 waits at the coordinator's address until each of the others has come, and says by number
who has not. The connections then stay open: an operating system closes those of a process that
ends, however it ends, and each of the others is ended too, before it waits for it in a sum.
"""

import contextlib
import errno
import json
import select
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from parity.contract.errors import COMMON, CnnParityError, ProcessError
from parity.contract.interrupts import end
from parity.contract.processes import Processes

PATIENCE = 3.0
"""Seconds in which another process's end is noticed, after a framework's error that may be due to
it; and in which the others end, after a process said that it does."""


@dataclass
class Meeting:
    """The connections between process 0 and each of the others; one of these has one only."""

    program: str
    """What a line on standard error begins with."""
    processes: Processes
    address: str
    """HOST:PORT, free, for the framework to meet at."""
    peers: dict[int, socket.socket] = field(default_factory=dict)
    _failing: bool = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """End this process, with a line, as soon as another one ends during this block."""
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            yield
        except COMMON:
            self._send({"done": True})
            raise
        except BaseException as error:
            if not isinstance(error, CnnParityError):  # a framework's: perhaps one was lost
                time.sleep(PATIENCE)
            self._failing = True
            self._send({"lost": self.processes.process_id, "why": str(error)[:1000]})
            time.sleep(PATIENCE / 10)
            raise
        else:
            self._send({"done": True})

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for index, peer in self.peers.items():
                selector.register(peer, selectors.EVENT_READ, index)
            while selector.get_map():
                for key, _ in selector.select():
                    said = _read(self.peers[key.data]) or {"lost": key.data}
                    if "lost" in said:
                        self._end(said, told_by=key.data)
                    selector.unregister(key.fileobj)

    def _end(self, said: dict[str, Any], *, told_by: int) -> None:
        """Tell the others, and end, unless this process is about to end by itself."""
        if self._failing:
            return
        self._send(said, but=told_by)
        hint = ", and this one with it; continue from the last checkpoint with --resume"
        end(
            f"{self.program}: error: process {said['lost']} of {self.processes.processes} has"
            f" ended{': ' + said['why'] if said.get('why') else hint}",
            ProcessError.exit_code,
        )

    def _send(self, message: dict[str, Any], but: int | None = None) -> None:
        for index, peer in self.peers.items():
            if index != but:
                with contextlib.suppress(OSError):
                    _write(peer, message)


def meet(program: str, processes: Processes) -> Meeting:
    """Wait until all processes have come to the coordinator; or raise ProcessError, in each."""
    if processes.process_id == 0:
        return _receive(program, processes)
    return _arrive(program, processes)


def _receive(program: str, processes: Processes) -> Meeting:
    host, port = processes.address
    deadline = time.monotonic() + processes.wait
    count = processes.processes or 1
    peers: dict[int, socket.socket] = {}
    try:
        server = socket.create_server((host, port))
        with socket.create_server((host, 0)) as other:
            address = f"{processes.address[0]}:{other.getsockname()[1]}"
    except OSError as error:
        reason = "the port is in use" if error.errno == errno.EADDRINUSE else error
        raise ProcessError(
            f"process 0 cannot wait at {processes.coordinator} ({reason}); name a free port of the"
            " machine that it runs on with --coordinator"
        ) from None
    with server:
        while missing := sorted(set(range(1, count)) - set(peers)):
            readable, _, _ = select.select(
                [server, *peers.values()], [], [], max(0, deadline - time.monotonic())
            )
            if not readable:
                _refuse(peers, _absent(missing, processes))
            if readable != [server]:
                lost = next(index for index, peer in peers.items() if peer in readable)
                peers.pop(lost).close()
                _refuse(peers, f"process {lost} of {count} has ended while it waited for others")
            peer = server.accept()[0]
            peer.settimeout(1)
            said = _read(peer)
            if not isinstance(said, dict) or said.get("program") != program:
                peer.close()  # a stranger's, or another program's
                continue
            index = said.get("process_id")
            known = peers | {-1: peer}
            if said.get("processes") != count:
                other = f"process {index} has --processes {said.get('processes')}"
                _refuse(known, f"{other}, process 0 has {count}")
            if index not in missing:
                _refuse(known, f"two processes have --process-id {index}")
            peers[index] = peer
    for peer in peers.values():
        peer.settimeout(None)
        _write(peer, {"address": address})
    return Meeting(program, processes, address, peers)


def _arrive(program: str, processes: Processes) -> Meeting:
    deadline = time.monotonic() + processes.wait
    while True:
        try:
            peer = socket.create_connection(processes.address, timeout=1)
            break
        except OSError as error:
            if isinstance(error, socket.gaierror):
                where = f"the host of {processes.coordinator} is not known ({error.strerror})"
                raise ProcessError(f"{where}; name another with --coordinator") from None
            if time.monotonic() > deadline:
                raise ProcessError(_absent([0], processes)) from None
            time.sleep(0.1)
    hello = {"process_id": processes.process_id, "processes": processes.processes}
    _write(peer, {"program": program, **hello})
    peer.settimeout(max(1, deadline + 1 - time.monotonic()))
    said = _read(peer)
    if not isinstance(said, dict) or "address" not in said:
        peer.close()
        ended = f"process 0 at {processes.coordinator} has ended, or is another program"
        raise ProcessError(said.get("refused", ended) if isinstance(said, dict) else ended)
    peer.settimeout(None)
    return Meeting(program, processes, said["address"], {0: peer})


def _absent(missing: list[int], processes: Processes) -> str:
    which = ("process " if len(missing) == 1 else "processes ") + ", ".join(map(str, missing))
    return (
        f"{which} of {processes.processes} did not come to {processes.coordinator} within"
        f" {processes.wait} s; start all of them, with the same --coordinator, or give --wait more"
    )


def _refuse(peers: dict[int, socket.socket], why: str) -> NoReturn:
    for peer in peers.values():
        with contextlib.suppress(OSError), peer:
            _write(peer, {"refused": why})
    raise ProcessError(why)


def _write(peer: socket.socket, message: dict[str, Any]) -> None:
    peer.sendall(json.dumps(message).encode() + b"\n")


def _read(peer: socket.socket) -> Any:
    """Return the message of one line, and read nothing after it; None where there is none."""
    line = b""
    try:
        while len(line) < 4096 and not line.endswith(b"\n"):
            if not (more := peer.recv(1)):
                break
            line += more
        return json.loads(line)
    except (OSError, ValueError):
        return None
