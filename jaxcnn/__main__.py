"""The command line `jaxcnn`."""

import os
import sys

from parity.contract.cli.convolutions import plain_convolutions
from parity.contract.interrupts import exit_on_interrupt


def main() -> int:
    """Run the command line and return its exit status."""
    exit_on_interrupt()
    plain_convolutions()
    if any(argument.startswith("--coordinator") for argument in sys.argv):
        # JAX aborts with a trace of its own where process 0 is lost; `rollcall` says it in a line
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "4"
    import jaxcnn  # after it, so that Ctrl-C works from here on
    from parity.contract.cli import programs

    return programs.main(jaxcnn, "Train a small convolutional network in JAX.")


if __name__ == "__main__":
    sys.exit(main())
