"""The command line `parity`."""

import sys

from parity.commands.bench import Bench
from parity.commands.check import Check
from parity.commands.convert import Convert
from parity.commands.doctor import Doctor
from parity.commands.prove import Prove
from parity.commands.selftest import Selftest
from parity.commands.train import Train
from parity.contract.cli import command
from parity.contract.cli.convolutions import plain_convolutions
from parity.contract.interrupts import exit_on_interrupt

COMMANDS: dict[type[command.Debug], command.Command] = {
    options: options.run for options in (Prove, Check, Train, Bench, Doctor, Selftest, Convert)
}


def main() -> int:
    """Run the command line and return its exit status."""
    exit_on_interrupt()
    plain_convolutions()
    description = "Prove that PyTorch and JAX compute the same, or say where they part and why."
    return command.run("parity", description, COMMANDS, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
