"""The command line `parity`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from parity.contract import command
from parity.contract.errors import OutputError
from parity.contract.recipe import DatasetName, Device, DType


@dataclass(frozen=True, kw_only=True)
class Check:
    """Compare one training step of two subjects, stage by stage, against float64 by hand.

    Exit status: 0 they agree, 1 they do not.
    """

    a: str = "torch:eager"
    """A subject: torch:eager, torch:jit, jax:eager or jax:jit."""
    b: str = "jax:jit"
    """Another."""
    dataset: DatasetName = "mnist"
    """Data set. digits ships with scikit-learn and needs no network."""
    data_dir: Path | None = None
    """Folder of the data set's IDX files. Default: $CNN_DATA_DIR, else ./data."""
    seed: int = 0
    """Seed of the weights and of the batch."""
    batch_size: int = 64
    """Images in the step."""
    device: Device = "auto"
    """Where to compute. auto: the accelerator that a framework finds, else the CPU."""
    dtype: DType = "float32"
    """Precision of weights and activations."""
    json: Path | None = None
    """File to write everything that the screen shows to."""
    debug: bool = False
    """Show the traceback of an error."""


def main() -> int:
    """Run the command line and return its exit status."""
    description = "Prove that PyTorch and JAX compute the same training step, or say where not."
    return command.run("parity", description, {"check": Check}, _check)


def _check(options: Check) -> int:
    from parity.checks import check

    verdict = check(
        a=options.a,
        b=options.b,
        dataset=options.dataset,
        data_dir=options.data_dir,
        seed=options.seed,
        batch_size=options.batch_size,
        device=options.device,
        dtype=options.dtype,
    )
    print(verdict.table())
    print(verdict)
    if options.json is not None:
        text = json.dumps(verdict.to_json(), indent=2, allow_nan=False)
        try:
            options.json.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"cannot write {options.json}: {error.strerror}; give --json another path"
            ) from None
    return 0 if verdict.agrees else 1


if __name__ == "__main__":
    sys.exit(main())
