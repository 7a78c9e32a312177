"""Ctrl-C or SIGTERM ends a command line: one line, exit status 130 or 143, whatever it is doing.

Frameworks swallow a KeyboardInterrupt, or crash after it. So the process leaves from the signal's
handler, except where temporary files would be left behind, or steps of a training be lost.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def exit_on_interrupt() -> None:
    """Make Ctrl-C and SIGTERM end this process; for the first line of a command."""
    for number in SIGNALS:
        signal.signal(number, leave)


class _Interrupt(BaseException):
    """A signal came; its number."""


def cleaning_up() -> AbstractContextManager[None]:
    """Let the signals raise an exception in this block, so that its temporary files are removed."""

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        raise _Interrupt(number)

    return handling(interrupt)


@contextlib.contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Give the signals another handler in this block, if `exit_on_interrupt` handles them now."""
    ours = signal.getsignal(signal.SIGINT) is leave
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in SIGNALS:
        signal.signal(number, handler)
    try:
        yield
    except _Interrupt as interrupt:
        leave(interrupt.args[0])
    finally:
        exit_on_interrupt()


def leave(number: int, _frame: FrameType | None = None) -> NoReturn:
    """Say that the command was interrupted by a signal, and end the process."""
    end("interrupted", 128 + number)


def end(line: str, status: int) -> NoReturn:
    """Say why on standard error, and end the process at once, from whichever thread."""
    with contextlib.suppress(RuntimeError, OSError):  # the signal came in the middle of a write
        if sys.stdout.isatty():
            sys.stdout.write("\r\x1b[K\x1b[?25h")  # remove a bar, show the cursor
        sys.stdout.flush()
    os.write(2, f"{line}\n".encode())
    os._exit(status)
