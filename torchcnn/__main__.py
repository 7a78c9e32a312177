"""The command line `torchcnn`."""

import sys

from parity.contract.cli.convolutions import plain_convolutions
from parity.contract.cli.threads import bind_threads
from parity.contract.interrupts import exit_on_interrupt


def main() -> int:
    """Run the command line and return its exit status."""
    exit_on_interrupt()
    bind_threads()
    plain_convolutions()
    import torchcnn  # after it, so that Ctrl-C works from here on
    from parity.contract.cli import programs

    return programs.main(torchcnn, "Train a small convolutional network in PyTorch.")


if __name__ == "__main__":
    sys.exit(main())
