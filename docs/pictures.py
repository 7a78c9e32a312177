"""The two pictures of README: `make pictures`, with MNIST in $CNN_DATA_DIR or ./data."""

import sys
from pathlib import Path

import jaxcnn
import parity
from parity.contract import Recipe
from parity.pairs.pair import load_pair

FOLDER = Path(__file__).parent / "pictures"


def main() -> int:
    """Write them, and return the exit status."""
    FOLDER.mkdir(exist_ok=True)
    proof = parity.prove(load_pair("parity.pairs.examples.two_mistakes"))
    proof.plot().savefig(FOLDER / "proof.png", dpi=100)
    jaxcnn.fit(Recipe()).plot().savefig(FOLDER / "losses.png", dpi=100)
    return 0


if __name__ == "__main__":
    sys.exit(main())
