"""Options that several of `parity`'s commands share; `--help` lists a class's last base first."""

from dataclasses import dataclass
from pathlib import Path

from parity.contract.cli.command import Where
from parity.contract.recipe import DatasetName, DType


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Who is compared."""

    a: str = "torch:eager"
    """A subject: numpy, or torch:eager, torch:jit, jax:eager or jax:jit, with :fused or without."""
    b: str = "jax:jit"
    """Another."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """On which images."""

    dataset: DatasetName = "mnist"
    """Data set. digits ships with scikit-learn and needs no network."""
    data_dir: Path | None = None
    """Folder of the data set's IDX files. Default: $CNN_DATA_DIR, else ./data."""


@dataclass(frozen=True, kw_only=True)
class Numbers(Where):
    """From which numbers, and how precise."""

    seed: int = 0
    """Seed of the initial weights and of the batches."""
    dtype: DType = "float32"
    """Precision of weights and activations."""
