"""The command line `parity`."""

import sys

from parity.commands import bench, check, convert, doctor, selftest, train
from parity.contract.cli import command
from parity.contract.interrupts import exit_on_interrupt

COMMANDS = {
    check.Check: check.run,
    train.Train: train.run,
    bench.Bench: bench.run,
    doctor.Doctor: doctor.run,
    selftest.Selftest: selftest.run,
    convert.Convert: convert.run,
}


def main() -> int:
    """Run the command line and return its exit status."""
    exit_on_interrupt()
    description = "Prove that PyTorch and JAX compute the same training step, or say where not."
    return command.run("parity", description, COMMANDS, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
