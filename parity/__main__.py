"""The command line `parity`."""

import sys

from parity.commands import Bench, Check, Convert, Doctor, Selftest, Train
from parity.contract.cli import command
from parity.contract.interrupts import exit_on_interrupt

COMMANDS: dict[type[command.Debug], command.Command] = {
    options: options.run for options in (Check, Train, Bench, Doctor, Selftest, Convert)
}


def main() -> int:
    """Run the command line and return its exit status."""
    exit_on_interrupt()
    description = "Prove that PyTorch and JAX compute the same training step, or say where not."
    return command.run("parity", description, COMMANDS, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
