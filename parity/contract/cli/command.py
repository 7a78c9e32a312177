"""How every command line of this project parses its arguments and ends."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from parity.contract.cli.tables import wrapped
from parity.contract.errors import CnnParityError, StoppedError, missing_package
from parity.contract.recipe import Device
from parity.contract.version import __version__

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


_MORE = "--version says which version this is."

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
    if args and args[0] == "--version":
        print(f"{prog} {__version__}")
        return 0
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
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("", "parity", "jaxcnn", "torchcnn"):
            traceback.print_exc()
            return 70
        print(f"{prog}: error: {missing_package(error)}", file=sys.stderr)
        return CnnParityError.exit_code
    except Exception:  # noqa: BLE001 - uncaught, its status 1 would mean "they disagree"
        traceback.print_exc()
        return 70  # EX_SOFTWARE: a bug in this project


class _Shown(io.StringIO):
    """Keeps what is written to standard output, and looks like it."""

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] - as io has it
        return sys.__stdout__.encoding if sys.__stdout__ else "utf-8"

    def isatty(self) -> bool:
        return bool(sys.__stdout__ and sys.__stdout__.isatty())


def _options(of: Any) -> list[str]:
    """Return the names of a command's options, those of a field that is a recipe among them."""
    names = []
    for field in dataclasses.fields(of):
        nested = dataclasses.is_dataclass(field.type)
        names += _options(field.type) if nested else [f"--{field.name.replace('_', '-')}"]
    return names


def _parse(prog: str, description: str, named: dict[str, type[Debug]], args: Sequence[str]) -> Any:
    screen, shown = io.StringIO(), _Shown()
    try:
        with contextlib.redirect_stderr(screen), contextlib.redirect_stdout(shown):
            return tyro.extras.subcommand_cli_from_dict(
                named, prog=prog, description=f"{description}\n{_MORE}", args=args, config=CONFIG
            )
    except SystemExit as end:
        if not end.code:
            # tyro fits the boxes of a help to the screen, and not the description above them
            for line in shown.getvalue().splitlines():
                print(wrapped(line, indent="") if line[:1].isalpha() else line)
            raise
        # tyro has no public way to get at an error but its box (`console_outputs=False` only hides
        # it): the text between its title and its next rule; without Unicode no frame but two rules
        text = "\n".join(line.strip("│ ") for line in screen.getvalue().splitlines())
        parts = re.split(r"^(?:╭─.*|[─-]+)$", text, flags=re.MULTILINE)
        error = " ".join(parts[len(parts) > 1].split())
        error = re.sub(r"^Error parsing (?!--)\S+: ", "", error).rstrip(".")
        if match := re.match(r"Unrecognized options: (--[\w-]+)", error):
            known = _options(named[args[0]]) if args[0] in named else []
            near = difflib.get_close_matches(match[1], known, n=1)
            error += f"; did you mean {near[0]}?" if near else ""
        helper = " ".join([prog, *(name for name in args[:1] if name in named), "--help"])
        raise CnnParityError(f"{error}; see {helper}") from None
