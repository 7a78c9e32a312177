"""How every command line of this project parses its arguments and ends."""

import contextlib
import dataclasses
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


Options = TypeVar("Options", bound=Debug)

Commands = Mapping[type[Debug], Callable[[Any], int | None]]
"""By the dataclass of a command's options, what executes it; None is exit status 0.

The command is named as its class, in lower case; the docstring is its help.
"""


def run(prog: str, description: str, commands: Commands, argv: Sequence[str] | None = None) -> int:
    """Parse `argv`, execute the chosen command and return the exit status.

    An error that a user can mend becomes one line on standard error; `--debug` shows where it
    was raised.

    Args:
        prog: name of the program.
        description: first paragraph of its help.
        commands: what there is to choose from.
        argv: arguments; default `sys.argv[1:]`.
    """
    args = list(sys.argv[1:] if argv is None else argv)
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


class _UsageError(CnnParityError):
    """The command line is wrong."""


def _parse(prog: str, description: str, commands: Commands, args: list[str]) -> Any:
    named = {options.__name__.lower(): options for options in commands}
    lines = (" ".join([f"{name}:", *_arguments(options)]) for name, options in named.items())
    screen = io.StringIO()
    try:
        with contextlib.redirect_stderr(screen):
            return tyro.extras.subcommand_cli_from_dict(
                named,
                prog=prog,
                description="\n\n".join([description, *lines]),
                args=args,
                config=_CONFIG,
            )
    except SystemExit as end:
        if not end.code:
            raise
        name = args[0] if args and args[0] in named else ""
        helper = " ".join(filter(None, [prog, name, "--help"]))
        raise _UsageError(f"{_first_paragraph(screen.getvalue())}; see {helper}") from None


def _first_paragraph(box: str) -> str:
    """Return what tyro's box says below its title and above its next rule, on one line.

    tyro has no public way to get at an error but its box: `console_outputs=False` only hides it.
    Without Unicode the title has no frame, and a rule follows it.
    """
    text = "\n".join(line.strip("│ ") for line in box.splitlines())
    said = re.split(r"^(?:╭─.*|[─-]+)$", text, flags=re.MULTILINE)[1]
    return re.sub(r"^Error parsing (?!--)\S+: ", "", " ".join(said.split())).rstrip(".")


def _arguments(options: type) -> list[str]:
    """Return a command's arguments: names in capitals first, then options."""
    names: list[str] = []
    for field in dataclasses.fields(options):
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            names += _arguments(field.type)
        elif tyro.conf.Positional in getattr(field.type, "__metadata__", ()):
            names.append(field.name.upper())
        else:
            names.append(f"--{field.name.replace('_', '-')}")
    return sorted(names, key=lambda name: name.startswith("--"))
