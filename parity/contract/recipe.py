"""What to train, and how: one frozen dataclass behind the command lines, the API and the files."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from parity.contract.errors import RecipeError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Int64

DatasetName = Literal["mnist", "fashion_mnist", "kmnist", "digits"]
Device = Literal["auto", "cpu", "cuda", "tpu"]
Mode = Literal["auto", "jit", "eager"]
Kernel = Literal["auto", "layers", "fused"]
DType = Literal["float32", "float64"]

ADAM_B1, ADAM_B2, ADAM_EPS = 0.9, 0.999, 1e-8
"""Adam's decay of the first and of the second moment, and what is added to the second one's root
(Kingma & Ba 2015)."""

_ADAM = {"b1": ADAM_B1, "b2": ADAM_B2, "eps": ADAM_EPS}
"""Fixed: written with every recipe, and not one of its fields."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """On which images."""

    dataset: DatasetName = "mnist"
    """Data set. digits ships with scikit-learn and needs no network."""
    data_dir: Path | None = None
    """Folder of the data set's IDX files. Default: $CNN_DATA_DIR, else ./data."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Data):
    """A whole training: data, length, rate, seed and where it runs.

    What is no field is fixed, as in the tutorial: the network, pixels / 255, mean cross-entropy, a
    new order in every epoch, its last batch kept, and Adam with a constant rate, betas 0.9 and
    0.999, epsilon 1e-8 and no weight decay. For these the step is written by hand and its bounds
    are derived; a training by another recipe is a loop of your own around `train_step`.

    Raises:
        RecipeError: a field has a value that is not allowed; names field, value and what is.
    """

    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 64
    """Images in a step; the last batch of an epoch may be smaller."""
    lr: float = 1e-3
    """Adam's learning rate."""
    seed: int = 0
    """Seed of the initial weights and of the batch order."""
    limit: int | None = None
    """Train on the first LIMIT training images only."""
    device: Device = "auto"
    """Where to compute. auto: the GPU (JAX: or TPU) that the framework finds, else the CPU."""
    mode: Mode = "auto"
    """Compiled or op by op. auto: what is usual, jit for JAX and eager for PyTorch."""
    kernel: Kernel = "auto"
    """Layer by layer, or convolution, ReLU and pooling as one matrix product. auto: what measures
    faster: on a CPU fused, except in JAX op by op; on a GPU fused in JAX compiled; else layers."""
    dtype: DType = "float32"
    """Precision of weights, activations and optimiser state."""

    def __post_init__(self) -> None:
        for name, annotation in typing.get_type_hints(type(self)).items():
            value, types = getattr(self, name), typing.get_args(annotation)
            if typing.get_origin(annotation) is Literal:
                if value not in types:
                    raise RecipeError(f"{name} must be one of {', '.join(types)}, got {value!r}")
            elif annotation is int or (int in types and value is not None):
                require_integer(name, value, at_least=0 if name == "seed" else 1)
        if self.data_dir is not None and not isinstance(self.data_dir, str | Path):
            raise RecipeError(f"data_dir must be a path, got {self.data_dir!r}")
        number = isinstance(self.lr, int | float) and not isinstance(self.lr, bool)
        if not number or not 0 < self.lr <= 1e37:  # divided by 1 - ADAM_B1, still a float32
            raise RecipeError(f"lr must be a finite number above 0, at most 1e+37, got {self.lr!r}")

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def batches(self, epoch: int, examples: int) -> "Iterator[Int64[np.ndarray, 'batch']]":
        """Yield the indices of each batch of an epoch, counted from 1, of so many examples."""
        from parity.contract.batches import batches  # here: `--help` does not wait for NumPy

        return batches(seed=self.seed, epoch=epoch, examples=examples, batch_size=self.batch_size)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values, Adam's fixed hyperparameters included."""
        data_dir = None if self.data_dir is None else str(self.data_dir)
        return {**dataclasses.asdict(self), "data_dir": data_dir, **_ADAM}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Recipe":
        """Return the recipe of `to_json`; raise RecipeError, also where Adam's numbers differ."""
        values = {"kernel": "layers", **values}  # what there was before there was a choice
        names = [field.name for field in dataclasses.fields(cls)]
        missing, unknown = {*names, *_ADAM} - {*values}, {*values} - {*names, *_ADAM}
        if missing or unknown:
            missing, unknown = (sorted(found) or "nothing" for found in (missing, unknown))
            raise RecipeError(f"recipe: missing {missing}, unknown {unknown}")
        for name, expected in _ADAM.items():
            if values[name] != expected:
                raise RecipeError(f"{name} must be {expected}, got {values[name]!r}")
        if isinstance(values["data_dir"], str):
            values["data_dir"] = Path(values["data_dir"])
        return cls(**{name: values[name] for name in names})


def require_integer(name: str, value: object, *, at_least: int) -> None:
    """Raise RecipeError unless an option is an integer that is large enough."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise RecipeError(f"{name} must be an integer of at least {at_least}, got {value!r}")
