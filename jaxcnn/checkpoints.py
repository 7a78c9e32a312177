"""Checkpoints as Flax's users keep them: folders of Orbax, in Flax's layout.

    state = orbax.checkpoint.StandardCheckpointer().restore(folder / "state")
    nnx.replace_by_pure_dict(params, state["params"])  # params = nnx.state(model, nnx.Param)

`state["opt_state"]` is that of optax.adam. The folder's item `checkpoint` says the rest as JSON:
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

from jaxcnn.state import LAYOUT
from parity.contract.errors import CheckpointError, CnnParityError, OutputError
from parity.contract.files.tensors import MalformedError, unusable
from parity.contract.files.whole import writing_folder
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.state import PARAMETERS, Arrays, State

LARGEST = 2**26
"""Bytes of a checkpoint; its arrays take less than one million."""

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
    try:
        if not (path / _MARK).is_file():
            raise MalformedError("it is not a folder of Orbax")
        if sum(file.stat().st_size for file in path.rglob("*")) > LARGEST:
            raise MalformedError(f"it has more than {LARGEST} bytes")
        tree, values = _restore(path.resolve())
        return Checkpoint.from_json(values, _from_tree(tree))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except (MalformedError, CnnParityError, RecursionError) as error:
        raise unusable(path, f"is not a checkpoint of this network: {error}") from None


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(
        ocp.CompositeCheckpointHandler(
            state=ocp.StandardCheckpointHandler(), checkpoint=ocp.JsonCheckpointHandler()
        )
    )


def _restore(path: Path) -> tuple[Any, Any]:
    """Return the items state and checkpoint."""
    try:
        with _quietly(), _checkpointer() as checkpointer:
            found: Any = checkpointer.metadata(path).item_metadata
            target = _matching(found["state"])
            restored = checkpointer.restore(
                path,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(target, strict=True),
                    checkpoint=ocp.args.JsonRestore(),
                ),
            )
        return restored["state"], restored["checkpoint"]
    except MalformedError:
        raise
    except Exception as error:  # noqa: BLE001 - Orbax and TensorStore have each their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MalformedError(f"Orbax refuses it ({reason})") from None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep off the screen what Orbax and TensorStore say about a failure besides raising it.

    Threads of TensorStore that answer after it find the event loop closed, and say so long after
    the block: then, what drops that stays.
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


def _matching(metadata: Any) -> Any:
    """Return the tree of shapes and dtypes to restore, which is what the folder announces."""
    leaves = jax.tree.leaves(metadata.tree)
    found = {leaf.name: (str(leaf.dtype), leaf.shape, leaf.storage.chunk_shape) for leaf in leaves}
    dtype = "float64" if found.get("params.fc1.bias", ("",))[0] == "float64" else "float32"
    zeros = {name: np.zeros(shape, dtype) for name, (shape, _) in PARAMETERS.items()}
    target = _to_tree(State(params=zeros, adam_m=zeros, adam_v=zeros, step=0))
    expected = {
        _name(path): (str(leaf.dtype), leaf.shape, leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(target)
    }
    if found != expected:
        wrong = {name: value for name, value in found.items() if expected.get(name) != value}
        missing = sorted(set(expected) - set(found))
        raise MalformedError(f"its arrays are others: missing {missing}, unexpected {wrong}")
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), target)


def _name(path: tuple[Any, ...]) -> str:
    """Return Orbax's name for a leaf: the keys, indices and fields that lead to it."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _to_tree(state: State) -> dict[str, Any]:
    """Return weights and optimiser state as Flax and Optax have them, in NumPy."""
    count = np.array(state.step, dtype=np.int32)
    adam = optax.ScaleByAdamState(count, _to_flax(state.adam_m), _to_flax(state.adam_v))
    return {"params": _to_flax(state.params), "opt_state": (adam, optax.EmptyState())}


def _from_tree(tree: Any) -> State:
    adam = tree["opt_state"][0]
    return State(
        params=_from_flax(tree["params"]),
        adam_m=_from_flax(adam.mu),
        adam_v=_from_flax(adam.nu),
        step=int(adam.count),
    )


def _to_flax(arrays: Arrays) -> Any:
    tree: dict[str, dict[str, np.ndarray]] = {}
    for name, row in LAYOUT.items():
        layer, leaf = row.path
        tree.setdefault(layer, {})[leaf] = np.ascontiguousarray(row.to_native(arrays[name]))
    return tree


def _from_flax(tree: Any) -> Arrays:
    return {
        name: np.ascontiguousarray(row.to_canonical(tree[row.path[0]][row.path[1]]))
        for name, row in LAYOUT.items()
    }
