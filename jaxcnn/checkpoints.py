"""Checkpoints as Flax's users keep them: folders of Orbax, in Flax's layout.

    state = orbax.checkpoint.StandardCheckpointer().restore(folder / "state")
    nnx.replace_by_pure_dict(params, state["params"])  # params = nnx.state(model, nnx.Param)

`state["opt_state"]` is that of optax.adam. The folder's item `checkpoint` holds the rest as JSON:
recipe, position, records.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp

from jaxcnn.state import from_flax, to_flax
from parity.contract.errors import CheckpointError, OutputError
from parity.contract.files import writing_folder
from parity.contract.run.checkpoint import LARGEST, Checkpoint, reading
from parity.contract.run.opening import ORBAX_MARK
from parity.contract.state import State, initial_state


def write_native(path: Path, checkpoint: Checkpoint) -> None:
    """Write a folder of Orbax, in place of another one; or raise OutputError, nothing touched."""
    if path.exists() and not (path / ORBAX_MARK).is_file():
        raise OutputError(
            f"{path} is not a folder of Orbax and is not replaced; name another place"
        )
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(_to_tree(checkpoint.state)),
        checkpoint=ocp.args.JsonSave(checkpoint.to_json()),
    )
    with writing_folder(path) as folder:
        try:
            with _checkpointer() as checkpointer:
                checkpointer.save(folder, args=items)
        except ValueError as error:  # TensorStore's, also for a disk that is full
            raise OutputError(f"cannot write {path}: {error}") from None


def read_native(path: Path) -> Checkpoint:
    """Read what `write_native` wrote; names, shapes and dtypes are checked before values are.

    A CheckpointError names the folder if it is missing, damaged or of another network.
    """
    with reading(path):
        if not (path / ORBAX_MARK).is_file():
            raise CheckpointError("it is not a folder of Orbax")
        inside = list(path.rglob("*"))
        if not all(file.is_file() or file.is_dir() for file in inside):
            raise CheckpointError("it holds something else than files and folders")
        if sum(file.stat().st_size for file in inside) > LARGEST:
            raise CheckpointError(f"it has more than {LARGEST} bytes")
        with _quietly(), _checkpointer() as checkpointer:
            found: Any = checkpointer.metadata(path.resolve()).item_metadata
            items = ocp.args.Composite(
                state=ocp.args.StandardRestore(_target(found["state"]), strict=True),
                checkpoint=ocp.args.JsonRestore(),
            )
            restored = checkpointer.restore(path.resolve(), args=items)
        return Checkpoint.from_json(restored["checkpoint"], _from_tree(restored["state"]))


def _checkpointer() -> ocp.Checkpointer:
    handlers = {"state": ocp.StandardCheckpointHandler(), "checkpoint": ocp.JsonCheckpointHandler()}
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep off the screen what Orbax and TensorStore log about a failure besides raising it."""
    logger = logging.getLogger("absl")
    level, hook = logger.level, sys.unraisablehook
    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda event: str(event.exc_value) == "Event loop is closed" or hook(event)
    try:
        yield
        sys.unraisablehook = hook  # not after a failure: TensorStore's threads report it later
    finally:
        logger.setLevel(level)


def _target(metadata: Any) -> Any:
    """Return the shapes and dtypes to restore if the folder announces just these."""
    leaves = jax.tree.leaves(metadata.tree)
    found = {leaf.name: (str(leaf.dtype), leaf.shape, leaf.storage.chunk_shape) for leaf in leaves}
    is_double = found.get("params.fc1.bias", ("",))[0] == "float64"
    target = _to_tree(initial_state(0, "float64" if is_double else "float32"))
    expected = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(target):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        expected[name] = (str(leaf.dtype), leaf.shape, leaf.shape)
    if found != expected:
        wrong = {name: value for name, value in found.items() if expected.get(name) != value}
        missing = sorted(set(expected) - set(found))
        raise CheckpointError(f"its arrays are others: missing {missing}, unexpected {wrong}")
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), target)


def _to_tree(state: State) -> dict[str, Any]:
    """Return weights and optimiser state as Flax and Optax have them, in NumPy."""
    params, mu, nu = map(to_flax, (state.params, state.adam_m, state.adam_v))
    adam = optax.ScaleByAdamState(np.array(state.step, np.int32), mu, nu)
    return {"params": params, "opt_state": (adam, optax.EmptyState())}


def _from_tree(tree: Any) -> State:
    adam = tree["opt_state"][0]
    params, m, v = map(from_flax, (tree["params"], adam.mu, adam.nu))
    return State(params=params, adam_m=m, adam_v=v, step=int(adam.count))
