"""Ctrl-C or SIGTERM ends a command line: one line, exit status 130 or 143, whatever it is doing.

Frameworks swallow a KeyboardInterrupt that arrives while they import or compile, or crash on the
way out after it. So the process leaves from the signal's handler, except where something would be
left behind: temporary files, or steps of a training.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_SHOW_CURSOR = "\x1b[?25h"


def exit_on_interrupt() -> None:
    """Make Ctrl-C and SIGTERM end this process; for the first line of a command."""
    for number in SIGNALS:
        signal.signal(number, _leave)


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """Let the signals raise an exception in this block, so that its temporary files are removed."""
    ours = signal.getsignal(signal.SIGINT) is _leave
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    try:
        yield
    except _Interrupt as interrupt:
        leave(interrupt.number)
    finally:
        exit_on_interrupt()


class StopRequest:
    """What `stopping_between_steps` has heard of."""

    number: int | None = None
    """The signal that came; None for none."""
    worth_waiting: bool = False
    """Whether steps have been made that would be lost if the process left at once."""

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Remember a signal; leave at once for the second, or where there is nothing to lose."""
        if self.number is not None or not self.worth_waiting:
            leave(number)
        self.number = number


@contextlib.contextmanager
def stopping_between_steps() -> Iterator[StopRequest]:
    """Let the signals be noted in this block, for a training that pauses between steps."""
    request = StopRequest()
    if signal.getsignal(signal.SIGINT) is not _leave:
        yield request
        return
    for number in SIGNALS:
        signal.signal(number, request.note)
    try:
        yield request
    finally:
        exit_on_interrupt()


def leave(number: int) -> NoReturn:
    """Say that the command was interrupted by a signal, and end the process."""
    with contextlib.suppress(RuntimeError, OSError):  # the signal came in the middle of a write
        if sys.stdout.isatty():
            sys.stdout.write(_SHOW_CURSOR)
        sys.stdout.flush()
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


def _leave(number: int, _frame: FrameType | None) -> None:
    leave(number)


class _Interrupt(BaseException):
    """A signal came."""

    def __init__(self, number: int) -> None:
        self.number = number


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise _Interrupt(number)
