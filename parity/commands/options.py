"""The options of `parity`'s commands; each class's docstring is its command's help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from parity.contract.recipe import DatasetName, Device, DType


@dataclass(frozen=True, kw_only=True)
class Check:
    """Compare a training step of two subjects, stage by stage, against float64 by hand.

    Exit status: 0 they agree, 1 they do not, 2 usage, data or environment error,
    3 one of them is not deterministic.
    """

    a: str = "torch:eager"
    """A subject: numpy, or torch:eager, torch:jit, jax:eager or jax:jit, with :fused or without."""
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
    """Where to compute. auto: the GPU (JAX: or TPU) that a framework finds, else the CPU."""
    dtype: DType = "float32"
    """Precision of weights and activations."""
    json: Path | None = None
    """File to write everything that the screen shows to."""
    report: Path | None = None
    """File to write an HTML page with tables and plots to."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Compare two subjects over a whole training: in float64, and in float32 step by step.

    Exit status: 0 they are the same algorithm, 1 they are not, 2 usage, data or environment error.
    """

    a: str = "torch:eager"
    """A subject: numpy, or torch:eager, torch:jit, jax:eager or jax:jit, with :fused or without."""
    b: str = "jax:jit"
    """Another."""
    dataset: DatasetName = "mnist"
    """Data set. digits ships with scikit-learn and needs no network."""
    data_dir: Path | None = None
    """Folder of the data set's IDX files. Default: $CNN_DATA_DIR, else ./data."""
    epochs: int = 1
    """Passes over the training images."""
    steps: int | None = None
    """Number of steps, instead of whole epochs."""
    batch_size: int = 64
    """Images in a step; the last batch of an epoch may be smaller."""
    seed: int = 0
    """Seed of the initial weights and of the batch order."""
    limit: int | None = None
    """Train on the first LIMIT training images only."""
    device: Device = "auto"
    """Where to compute. auto: the GPU (JAX: or TPU) that a framework finds, else the CPU."""
    dtype: DType = "float32"
    """float32 looks at the float64 training first; float64 looks at nothing else."""
    json: Path | None = None
    """File to write everything that the screen shows to."""
    report: Path | None = None
    """File to write an HTML page with tables and plots to."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Time subjects, and the tutorial's own loop, in turns; jit against eager.

    Each turn of an arm is a process of its own, with equal threads. The last arm runs twice, to
    show the noise; an arm is void if its losses are not those of float64 by hand, or its process
    ends.

    Exit status: 0 done, 1 an arm is void or the planted slowdown is not detected, 2 usage, data or
    environment error.
    """

    arms: tuple[str, ...] = ()
    """What to time: seed, the tutorial's loop, and subjects. Default: everything. The first is what
    the others are compared with."""
    a: str | None = None
    """With --b, instead of --arms: an arm."""
    b: str | None = None
    """Another."""
    phases: tuple[Literal["forward", "step", "epoch"], ...] = ("forward", "step", "epoch")
    """What of them to time."""
    batch_sizes: tuple[int, ...] = (64,)
    """Images in a step."""
    rounds: int = 9
    """Turns of each arm; a round of warm-up comes before."""
    threads: int | None = None
    """Threads of each arm. Default: the cores there are."""
    slowdown: float = 0.0
    """Run the last arm a third time, idling this fraction of its time: it has to be detected."""
    dataset: DatasetName = "mnist"
    """Data set. digits ships with scikit-learn and needs no network."""
    data_dir: Path | None = None
    """Folder of the data set's IDX files. Default: $CNN_DATA_DIR, else ./data."""
    limit: int | None = None
    """Train on the first LIMIT training images only."""
    seed: int = 0
    """Seed of the initial weights and of the batch order."""
    device: Device = "auto"
    """Where to compute. auto: the GPU (JAX: or TPU) that a framework finds, else the CPU."""
    dtype: DType = "float32"
    """Precision of weights and activations."""
    json: Path | None = None
    """File to write everything that the screen shows to."""
    report: Path | None = None
    """File to write an HTML page with tables and plots to."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what this machine computes: versions, devices, flags, and whether a step is right.

    Each subject makes the same step of a training on the bundled digits: stage by stage against
    float64 by hand, and again and again against itself.

    Exit status: 0 every available subject is right and deterministic, 1 one computes something
    else, 2 usage, data or environment error, 3 one is not deterministic.
    """

    seed: int = 0
    """Seed of the weights and of the batch."""
    runs: int = 100
    """How often each subject makes the step, to see whether it repeats itself bit for bit."""
    device: Device = "auto"
    """Where to compute. auto: the GPU (JAX: or TPU) that a framework finds, else the CPU."""
    dtype: DType = "float32"
    """Precision of weights and activations."""
    json: Path | None = None
    """File to write everything that the screen shows to."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class Selftest:
    """Plant a catalogue of porting mistakes into both subjects: each must be found at its stage.

    Correct code, from many states, must not be called wrong. Exit status: 0 both hold, 1 not,
    2 usage, data or environment error, 3 a subject is not deterministic.
    """

    a: str = "torch:eager"
    """A subject: torch:eager, torch:jit, jax:eager or jax:jit, with :fused or without."""
    b: str = "jax:jit"
    """Another."""
    dataset: DatasetName = "digits"
    """Data set of the correct cases. digits ships with scikit-learn and needs no network."""
    data_dir: Path | None = None
    """Folder of the data set's IDX files. Default: $CNN_DATA_DIR, else ./data."""
    cases: int = 40
    """Correct cases of each subject."""
    only: Literal["mistakes", "correct"] | None = None
    """Only one of the two parts."""
    device: Device = "auto"
    """Where to compute. auto: the GPU (JAX: or TPU) that a framework finds, else the CPU."""
    json: Path | None = None
    """File to write everything that the screen shows to."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert a checkpoint: .safetensors, .pt, or a folder of Orbax, whose name has no suffix.

    Weights, optimiser state, position and recipe go along. Of a state_dict alone the moments are
    zero, the recipe is the default one, and the training stands at its beginning.
    """

    source: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SOURCE")]]
    """Checkpoint to read, or the folder of a run."""
    target: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="TARGET")]]
    """Checkpoint to write."""
    overwrite: bool = False
    """Replace TARGET if it is there."""
    debug: bool = False
    """Show the traceback of an error."""
