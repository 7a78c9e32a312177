"""Ctrl-C ends a command line at once: one line, exit status 130, whatever is going on.

Frameworks swallow a KeyboardInterrupt that arrives while they import or compile, or crash on the
way out after it. So the process leaves from the signal's handler, except where something would be
left behind.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT."""

_SHOW_CURSOR = "\x1b[?25h"


def exit_on_interrupt() -> None:
    """Make Ctrl-C end this process; for the first line of a command."""
    signal.signal(signal.SIGINT, _leave)


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt in this block, so that its temporary files are removed."""
    ours = signal.getsignal(signal.SIGINT) is _leave
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        leave()
    finally:
        signal.signal(signal.SIGINT, _leave)


def leave() -> NoReturn:
    """Say that the command was interrupted, and end the process."""
    with contextlib.suppress(RuntimeError, OSError):  # the signal came in the middle of a write
        if sys.stdout.isatty():
            sys.stdout.write(_SHOW_CURSOR)
        sys.stdout.flush()
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _leave(_number: int, _frame: FrameType | None) -> None:
    leave()
