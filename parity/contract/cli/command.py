"""How every command line of this project parses its arguments and ends."""

import contextlib
import dataclasses
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tyro

from parity.contract.errors import CnnParityError, StoppedError

USAGE = 2
"""Exit status of a usage, data or environment error."""


PIPE_CLOSED = 141
"""Exit status where nobody reads the output any more: 128 + SIGPIPE."""

INTERNAL_ERROR = 70
"""Exit status of a bug in this project (EX_SOFTWARE); its traceback is shown."""


def run(
    prog: str,
    description: str,
    commands: Mapping[str, type],
    execute: Callable[[Any], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv`, execute the chosen command and return the exit status.

    An error that a user can mend becomes one line on standard error; `--debug` shows where it
    was raised.

    Args:
        prog: name of the program.
        description: first paragraph of its help.
        commands: the dataclass of each subcommand's options, which has a field `debug`.
        execute: called with an instance of one of them.
        argv: arguments; default `sys.argv[1:]`.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        command = _parse(prog, description, commands, args)
        return execute(command)
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


def given(args: Sequence[str]) -> set[str]:
    """Return the names of the options that a command line gives, as their fields are called."""
    flags = (arg.partition("=")[0] for arg in args if arg.startswith("--"))
    return {flag.removeprefix("--").replace("-", "_") for flag in flags}


class _UsageError(CnnParityError):
    """The command line is wrong."""


def _parse(prog: str, description: str, commands: Mapping[str, type], args: list[str]) -> Any:
    screen = io.StringIO()
    try:
        with contextlib.redirect_stderr(screen):
            return tyro.extras.subcommand_cli_from_dict(
                dict(commands),
                prog=prog,
                description=f"{description}\n\n{_synopsis(commands)}",
                args=args,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as end:
        if not end.code:
            raise
        name = args[0] if args and args[0] in commands else ""
        helper = " ".join(filter(None, [prog, name, "--help"]))
        raise _UsageError(f"{_first_paragraph(screen.getvalue())}; see {helper}") from None


def _first_paragraph(box: str) -> str:
    """Return what tyro's box says below its title and above its next rule, on one line."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    rules = [i for i, line in enumerate(lines) if re.fullmatch("[─╰╯-]+", line)]
    if rules and rules[0] == 0:  # without Unicode there is one below the title
        del lines[0]
        rules = [i - 1 for i in rules[1:]]
    text = " ".join(filter(None, lines[: rules[0] if rules else None]))
    return re.sub(r"^Error parsing (?!--)\S+: ", "", text).rstrip(".")


def _synopsis(commands: Mapping[str, type]) -> str:
    """Return a line for each command that lists its options."""
    return "\n\n".join(
        " ".join([f"{name}:", *_options(command)]) for name, command in commands.items()
    )


def _options(command: type) -> list[str]:
    """Return a command's arguments: names in capitals first, then options."""
    names, options = [], []
    for field in dataclasses.fields(command):
        nested = field.type if dataclasses.is_dataclass(field.type) else None
        if isinstance(nested, type):
            options += _options(nested)
        elif tyro.conf.Positional in getattr(field.type, "__metadata__", ()):
            names.append(field.name.upper())
        else:
            options.append(f"--{field.name.replace('_', '-')}")
    return names + options
