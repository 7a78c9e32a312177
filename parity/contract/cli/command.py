"""How every command line of this project parses its arguments and ends."""

import contextlib
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import tyro

from parity.contract.errors import CnnParityError, StoppedError
from parity.contract.recipe import Device

USAGE = 2
"""Exit status of a usage, data or environment error."""

PIPE_CLOSED = 141
"""Exit status where nobody reads the output any more: 128 + SIGPIPE."""

INTERNAL_ERROR = 70
"""Exit status of a bug in this project (EX_SOFTWARE); its traceback is shown."""

_CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)


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


Options = TypeVar("Options", bound=Debug)

Commands = Mapping[type[Debug], Callable[[Any], int | None]]
"""By the dataclass of a command's options, what executes it; None is exit status 0.

The command is named as its class, in lower case; the docstring is its help.
"""


def run(prog: str, description: str, commands: Commands, args: Sequence[str]) -> int:
    """Parse the arguments of a program, execute the chosen command and return the exit status.

    An error that a user can mend becomes one line on standard error; `--debug` shows where it
    was raised.
    """
    try:
        options = _parse(prog, description, commands, args)
        return commands[type(options)](options) or 0
    except BrokenPipeError:  # the reader of a pipe has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (CnnParityError, OSError) as error:
        if "--debug" in args:
            traceback.print_exc()
        message = " ".join(str(error).split())
        label = "" if isinstance(error, StoppedError) else "error: "
        print(f"{prog}: {label}{message}", file=sys.stderr)
        return error.exit_code if isinstance(error, CnnParityError) else USAGE
    except Exception:  # noqa: BLE001 - Python's own status, 1, would read "they disagree"
        traceback.print_exc()
        return INTERNAL_ERROR


def parse_again(args: Sequence[str], default: Options) -> Options:
    """Return a command's options where those that `args` leave out are `default`'s.

    Args:
        args: arguments that `run` has parsed already, the command's name first.
        default: options of the same command.
    """
    return tyro.cli(type(default), args=args[1:], default=default, config=_CONFIG)


def _parse(prog: str, description: str, commands: Commands, args: Sequence[str]) -> Any:
    named = {options.__name__.lower(): options for options in commands}
    screen = io.StringIO()
    try:
        with contextlib.redirect_stderr(screen):
            return tyro.extras.subcommand_cli_from_dict(
                named, prog=prog, description=description, args=args, config=_CONFIG
            )
    except SystemExit as end:
        if not end.code:
            raise
        helper = " ".join([prog, *(name for name in args[:1] if name in named), "--help"])
        raise CnnParityError(f"{_first_paragraph(screen.getvalue())}; see {helper}") from None


def _first_paragraph(box: str) -> str:
    """Return the text of tyro's box between its title and its next rule, on one line.

    tyro has no public way to get at an error but its box: `console_outputs=False` only hides it.
    Without Unicode the title has no frame, and a rule follows it.
    """
    text = "\n".join(line.strip("│ ") for line in box.splitlines())
    error = re.split(r"^(?:╭─.*|[─-]+)$", text, flags=re.MULTILINE)[1]
    return re.sub(r"^Error parsing (?!--)\S+: ", "", " ".join(error.split())).rstrip(".")
