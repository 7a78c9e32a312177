"""The command line `jaxcnn`."""

import sys

import jaxcnn
from parity.contract import cli


def main() -> int:
    """Run the command line and return its exit status."""
    return cli.main(jaxcnn, "Train a small convolutional network in JAX.")


if __name__ == "__main__":
    sys.exit(main())
