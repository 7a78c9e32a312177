"""How every command line of this project parses its arguments and ends."""

import contextlib
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from parity.contract.errors import CnnParityError, StoppedError
from parity.contract.recipe import Device

CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)


@dataclass(frozen=True, kw_only=True)
class Debug:
    """The option that every command has."""

    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class Where(Debug):
    """The option of a command that computes."""

    device: Device = "auto"
    """Where to compute. auto: the GPU (JAX: or TPU) that the framework finds, else the CPU."""


Command = Callable[[Any], int | None]
"""Executes a command's options; None is exit status 0."""


def run(
    prog: str, description: str, commands: Mapping[type[Debug], Command], args: Sequence[str]
) -> int:
    """Parse a program's arguments, execute the chosen command and return the exit status.

    `commands` maps the dataclass of a command's options, whose name and docstring are the command's
    name and help, to what executes it. An error that a user can mend becomes one line, and a status
    of its own; `--debug` shows where.
    """
    try:
        named = {options.__name__.lower(): options for options in commands}
        options = _parse(prog, description, named, args)
        return commands[type(options)](options) or 0
    except BrokenPipeError:  # the reader of a pipe has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE
    except (CnnParityError, OSError) as error:
        if "--debug" in args:
            traceback.print_exc()
        message = " ".join(str(error).split())
        label = "" if isinstance(error, StoppedError) else "error: "
        if not getattr(error, "silent", False):
            print(f"{prog}: {label}{message}", file=sys.stderr)
        return getattr(error, "exit_code", CnnParityError.exit_code)
    except Exception:  # noqa: BLE001 - uncaught, its status 1 would mean "they disagree"
        traceback.print_exc()
        return 70  # EX_SOFTWARE: a bug in this project


def _parse(prog: str, description: str, named: dict[str, type[Debug]], args: Sequence[str]) -> Any:
    screen = io.StringIO()
    try:
        with contextlib.redirect_stderr(screen):
            return tyro.extras.subcommand_cli_from_dict(
                named, prog=prog, description=description, args=args, config=CONFIG
            )
    except SystemExit as end:
        if not end.code:
            raise
        # tyro has no public way to get at an error but its box (`console_outputs=False` only hides
        # it): the text between its title and its next rule; without Unicode no frame but two rules
        text = "\n".join(line.strip("│ ") for line in screen.getvalue().splitlines())
        parts = re.split(r"^(?:╭─.*|[─-]+)$", text, flags=re.MULTILINE)
        error = " ".join(parts[len(parts) > 1].split())
        error = re.sub(r"^Error parsing (?!--)\S+: ", "", error).rstrip(".")
        helper = " ".join([prog, *(name for name in args[:1] if name in named), "--help"])
        raise CnnParityError(f"{error}; see {helper}") from None
