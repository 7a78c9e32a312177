"""Checkpoints as Flax's users keep them: folders of Orbax, in Flax's layout.

    state = orbax.checkpoint.StandardCheckpointer().restore(folder / "state")
    nnx.replace_by_pure_dict(params, state["params"])  # params = nnx.state(model, nnx.Param)

`state["opt_state"]` is that of optax.adam. The folder's item `checkpoint` holds the rest as JSON:
recipe, position, records.
"""

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp

from jaxcnn.state import from_flax, to_flax
from parity.contract.errors import CheckpointError, OutputError
from parity.contract.files.reading import LARGEST, reading
from parity.contract.files.whole import writing_folder
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.state import PARAMETERS, State

_MARK = "_CHECKPOINT_METADATA"
"""A file that every folder of Orbax has."""


def write_native(path: Path, checkpoint: Checkpoint) -> None:
    """Write a folder with items state and checkpoint; one of Orbax that is there is replaced.

    Raises:
        OutputError: it cannot be written, or something else is there; what was there is untouched.
    """
    if path.exists() and not (path / _MARK).is_file():
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
    """Read what `write_native` wrote.

    Names, shapes and dtypes of the arrays are checked before they are restored.

    Raises:
        CheckpointError: the folder is missing, damaged or of another network; names it.
    """
    with reading(path):
        if not (path / _MARK).is_file():
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
    return ocp.Checkpointer(
        ocp.CompositeCheckpointHandler(
            state=ocp.StandardCheckpointHandler(), checkpoint=ocp.JsonCheckpointHandler()
        )
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep off the screen what Orbax and TensorStore log about a failure besides raising it.

    Threads of TensorStore that answer long after a failure find the event loop closed and report
    that; so the hook that drops their reports stays after a failure.
    """
    logger = logging.getLogger("absl")
    level, hook = logger.level, sys.unraisablehook
    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = functools.partial(_unless_late, hook)
    try:
        yield
        sys.unraisablehook = hook
    finally:
        logger.setLevel(level)


def _unless_late(hook: Callable[[Any], object], event: Any) -> None:
    if str(event.exc_value) != "Event loop is closed":
        hook(event)


def _target(metadata: Any) -> Any:
    """Return the tree of shapes and dtypes to restore if the folder announces just these."""
    leaves = jax.tree.leaves(metadata.tree)
    found = {leaf.name: (str(leaf.dtype), leaf.shape, leaf.storage.chunk_shape) for leaf in leaves}
    dtype = "float64" if found.get("params.fc1.bias", ("",))[0] == "float64" else "float32"
    zeros = {name: np.zeros(shape, dtype) for name, (shape, _) in PARAMETERS.items()}
    target = _to_tree(State(params=zeros, adam_m=zeros, adam_v=zeros, step=0))
    name_of = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
    expected = {
        name_of(path): (str(leaf.dtype), leaf.shape, leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(target)
    }
    if found != expected:
        wrong = {name: value for name, value in found.items() if expected.get(name) != value}
        missing = sorted(set(expected) - set(found))
        raise CheckpointError(f"its arrays are others: missing {missing}, unexpected {wrong}")
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), target)


def _to_tree(state: State) -> dict[str, Any]:
    """Return weights and optimiser state as Flax and Optax have them, in NumPy."""
    count = np.array(state.step, dtype=np.int32)
    adam = optax.ScaleByAdamState(count, to_flax(state.adam_m), to_flax(state.adam_v))
    return {"params": to_flax(state.params), "opt_state": (adam, optax.EmptyState())}


def _from_tree(tree: Any) -> State:
    adam = tree["opt_state"][0]
    params, m, v = (from_flax(group) for group in (tree["params"], adam.mu, adam.nu))
    return State(params=params, adam_m=m, adam_v=v, step=int(adam.count))
