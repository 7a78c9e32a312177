"""`parity convert`."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from parity.contract.cli.command import Debug
from parity.contract.errors import OutputError, RecipeError

if TYPE_CHECKING:
    from parity.contract.run.checkpoint import Checkpoint


_BACKENDS = {".pt": "torchcnn", ".pth": "torchcnn", "": "jaxcnn"}
"""Who writes a checkpoint, by the suffix of its name."""


@dataclass(frozen=True, kw_only=True)
class Convert(Debug):
    """Convert a checkpoint: .safetensors, .pt, or a folder of Orbax, whose name has no suffix.

    SOURCE is recognised by what is inside: also a state_dict that torch.save or safetensors wrote,
    alone or in a dictionary. Weights, Adam's state, position and recipe are kept; weights alone get
    moments of zero, the default recipe, and a training at its beginning.

    With --pair, of any model: its weights, from PyTorch's state_dict to the tree of JAX's model, or
    back, every value bit for bit.
    """

    source: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SOURCE")]]
    """Checkpoint to read, or the folder of a run."""
    target: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="TARGET")]]
    """Checkpoint to write."""
    overwrite: bool = False
    """Replace TARGET if it is there."""
    pair: Annotated[str | None, tyro.conf.arg(metavar="FILE[:NAME]")] = None
    """A .py file or a module with the `parity.Pair` of both models."""
    map: Path | None = None
    """TOML file with rows of the map, as `parity prove --save-map` writes it, which win."""

    def run(self) -> None:
        if self.pair is not None:
            return self._convert_pair(self.pair)
        if self.map is not None:
            raise RecipeError("--map is of a pair; give --pair FILE[:NAME] too")
        checkpoint = convert(self.source, self.target, overwrite=self.overwrite)
        print(
            *(f"note: {n}" for n in checkpoint.notes), sep="\n", end="\n" * bool(checkpoint.notes)
        )
        print(f"{self.source} → {self.target}: {checkpoint}")
        return None

    def _convert_pair(self, name: str) -> None:
        from parity.contract.cli.console import ProgressBar
        from parity.pairs.conversion.converted import convert_weights
        from parity.pairs.jax_side.cpu import on_cpu
        from parity.pairs.mapping.mapfile import read_map
        from parity.pairs.pair import load_pair

        rows = read_map(self.map) if self.map else ()
        with on_cpu():
            pair = load_pair(name)
        with ProgressBar() as bar:
            done = convert_weights(pair, self.source, self.target, map=rows,
                                   overwrite=self.overwrite, progress=bar.show)  # fmt: skip
        print(*(f"note: {note}" for note in done.notes), sep="\n", end="\n" * bool(done.notes))
        print(f"{self.source} → {self.target}: {done}")


def convert(source: Path, target: Path, *, overwrite: bool = False) -> "Checkpoint":
    """Read a checkpoint, or that of a run's folder, write it in another format, and return it.

    CheckpointError: `source` is missing, damaged or of no known form. OutputError: `target` is
    there already, of no known format, or cannot be written.
    """
    from parity.contract.run.checkpoint import CHECKPOINT_FILE
    from parity.contract.run.opening import open_checkpoint

    if (target / CHECKPOINT_FILE).exists():
        target /= CHECKPOINT_FILE
    if (target.exists() or target.is_symlink()) and not overwrite:
        raise OutputError(f"{target} is there already; name another one, or give --overwrite")
    write = _writer(target)
    checkpoint = open_checkpoint(source, read_folder=_read_folder)
    write(target, checkpoint)
    return checkpoint


def _read_folder(path: Path) -> "Checkpoint":
    return importlib.import_module("jaxcnn").read_native(path)


def _writer(path: Path) -> "Callable[[Path, Checkpoint], None]":
    """Return what writes a checkpoint of the format that `path` is of."""
    from parity.contract.run.checkpoint import write_checkpoint

    suffix = "" if path.is_dir() else path.suffix
    if suffix == ".safetensors":
        return write_checkpoint
    if suffix not in _BACKENDS:
        formats = "a file .safetensors or .pt, or a folder of Orbax, whose name has no suffix"
        raise OutputError(f"{path} is of no known format: a checkpoint is {formats}")
    return importlib.import_module(_BACKENDS[suffix]).write_native
