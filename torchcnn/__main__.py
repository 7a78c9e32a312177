"""The command line `torchcnn`."""

import sys

import torchcnn
from parity.contract import cli


def main() -> int:
    """Run the command line and return its exit status."""
    return cli.main(torchcnn, "Train a small convolutional network in PyTorch.")


if __name__ == "__main__":
    sys.exit(main())
