"""The command line `jaxcnn`."""

import sys

from parity.contract.cli.convolutions import plain_convolutions
from parity.contract.interrupts import exit_on_interrupt


def main() -> int:
    """Run the command line and return its exit status."""
    exit_on_interrupt()
    plain_convolutions()
    import jaxcnn  # after it, so that Ctrl-C works from here on
    from parity.contract.cli import programs

    return programs.main(jaxcnn, "Train a small convolutional network in JAX.")


if __name__ == "__main__":
    sys.exit(main())
