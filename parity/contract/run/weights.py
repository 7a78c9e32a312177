"""A network's weights, and Adam's moments, in what other programs saved: found by what is inside.

A state_dict alone, or in a dictionary under any name, beside an optimiser's or not; its names with
what torch.compile, DataParallel or a model around it put in front; lower precision.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import safetensors

from parity.contract.errors import CheckpointError
from parity.contract.recipe import DType, Recipe
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.run.moments import adam_moments, learning_rate, plain_arrays
from parity.contract.run.pickled import mappings, read_torch
from parity.contract.state import PARAMETERS, State

_LONGEST = 2**25
"""Characters beside the tensors; one hundred thousand epochs have a third of it."""

WRAPPERS = ("_orig_mod", "module")
"""What torch.compile and DataParallel put into the names."""

FIRST = ("model_state_dict", "state_dict", "model", "net", "network")
"""Where the weights are looked for first, if there are several."""

_BESIDE = ("n_averaged",)
"""A count that AveragedModel keeps among its weights."""

_SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "U8": "uint8", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip


class _Found(NamedTuple):
    path: str
    """The keys that lead to it; empty for the file itself."""
    names: dict[str, str]
    """The names as they are, by the network's, in the order of the file."""
    arrays: Mapping[str, Any]


def read_saved(content: bytes, *, weights: bool = False) -> Checkpoint:
    """Return the checkpoint in the bytes of an archive of torch.save, this project's or another's.

    What the file lacks has its default: the recipe, but for learning rate and dtype; the beginning
    of the first epoch; without an optimiser moments and step of zero. With `weights` nothing else
    is wanted, and another optimiser than the recipe's is left out. CheckpointError says what was
    found.
    """
    tree = read_torch(content)
    match tree:
        case {"model": dict() as model, "optimizer": optimizer, "checkpoint": said, **rest} if (
            not rest and set(model) == set(PARAMETERS)
        ):
            own = _Found("model", {name: name for name in model}, model)
            state, lr = _state(own, [("optimizer", optimizer)], [])
            if _length(said, {}) > _LONGEST:
                raise CheckpointError("it holds too many values")
            checkpoint = Checkpoint.from_json(said, state)
            if checkpoint.recipe.lr != lr:
                expected = checkpoint.recipe.lr
                raise CheckpointError(f"its optimizer has lr {lr!r}, expected {expected!r}")
            return checkpoint
    return _from_tree(tree, weights=weights, backend="torch.save")


def read_state_dict(content: bytes) -> Checkpoint:
    """Return the weights in a plain safetensors file; CheckpointError says what was found."""
    found: dict[str, Any] = {}
    for name, tensor in safetensors.deserialize(content):
        kind = _SAFETENSORS.get(tensor["dtype"])
        if kind is None:
            raise CheckpointError(f"{name} is {tensor['dtype']}, expected F32 or F64")
        found[name] = np.frombuffer(tensor["data"], kind).reshape(tensor["shape"])
    return _from_tree(found, weights=False, backend="safetensors")


def _from_tree(tree: Any, *, weights: bool, backend: str) -> Checkpoint:
    notes: list[str] = []
    found = _find(tree, notes)
    optimizers = [
        (path, value) for path, value in mappings(tree) if {"state", "param_groups"} <= set(value)
    ]
    try:
        state, lr = _state(found, optimizers, notes)
    except CheckpointError as error:
        if not (weights and optimizers):
            raise
        state, lr = _state(found, [], notes)
        notes.append(f"its optimizer is not used: {error}")
    used = {path.partition(".")[0] for path in (found.path, *(p for p, _ in optimizers))}
    unused = [str(key) for key in tree if str(key) not in used] if found.path else []
    if unused:
        notes.append(f"not used: {', '.join(unused[:9])}")
    return Checkpoint(
        recipe=Recipe(lr=lr, dtype=cast(DType, str(state.dtype))),
        dataset_sha256=None,
        state=state,
        epoch=1,
        batch=0,
        loss_sum=0.0,
        epochs=(),
        backend=backend,
        versions={},
        notes=tuple(notes),
    )


def _find(tree: Any, notes: list[str]) -> _Found:
    """Return the weights of this network, wherever they are, or say what is there instead."""
    dicts = list(mappings(tree))
    found = [_Found(path, names, value) for path, value in dicts if (names := _named(value))]
    if not found:
        raise CheckpointError(_others(tree, dicts))
    where = [each.path for each in found]
    best = next((found[where.index(key)] for key in FIRST if key in where), None)
    if len(found) > 1:
        if best is None:
            raise CheckpointError(
                f"it holds this network's weights {len(found)} times, under {', '.join(where)};"
                " save one of them alone"
            )
        notes.append(f"of the weights under {', '.join(where)}, those under {best.path} are taken")
    best = best or found[0]
    name, given = next(iter(best.names.items()))
    if name != given:
        notes.append(f"{given} is read as {name}, and the others likewise")
    return best


def _named(arrays: Mapping[Any, Any]) -> dict[str, str]:
    """Return the names of a state_dict by this network's; nothing for another network's."""
    parts = {
        str(name): [part for part in str(name).split(".") if part not in WRAPPERS]
        for name in arrays
        if name not in _BESIDE
    }
    fronts = {tuple(part[:-2]) for part in parts.values()}
    names = {".".join(part[-2:]): name for name, part in parts.items()}
    right = set(names) == set(PARAMETERS) and len(names) == len(parts) and len(fronts) == 1
    return names if right else {}


def _others(tree: Any, dicts: list[tuple[str, dict[Any, Any]]]) -> str:
    """Say which names were found instead, and which are missing."""
    optimizers = tuple(f"{path}.".lstrip(".") for path, d in dicts if "param_groups" in d)
    held = [(path, _arrays_of(d)) for path, d in dicts if not f"{path}.".startswith(optimizers)]
    path, arrays = max(held, key=lambda each: len(each[1]), default=("", {}))
    if not arrays:
        what = "one tensor" if isinstance(tree, np.ndarray) else f"a {type(tree).__name__}"
        if isinstance(tree, dict):
            what = f"{', '.join(map(str, [*tree][:9])) or 'nothing'}"
        return (
            f"it holds no weights by name but {what}; expected {', '.join(PARAMETERS)}, as"
            " model.state_dict() has them"
        )
    missing = [name for name in PARAMETERS if name not in arrays]
    extra = [name for name in arrays if name not in PARAMETERS]
    others = [str(name) for name in dict(dicts)[path] if name not in arrays] if path else []
    text = f"it is another network's{f', under {path}' if path else ''}: found "
    text += ", ".join(arrays) if len(arrays) < 9 else f"{', '.join([*arrays][:8])} and more"
    text += f"; missing {', '.join(missing) or 'nothing'}, unexpected {', '.join(extra[:8])}"
    text += f" {', '.join(others[:3])}" if others else ""
    shapes = {shape: name for name, (shape, _) in PARAMETERS.items()}
    fitting = {name: shapes.get(array.shape) for name, array in arrays.items()}
    if sorted(map(str, fitting.values())) == sorted(PARAMETERS):
        renamed = ", ".join(f"{old} to {new}" for old, new in fitting.items() if old != new)
        text += f"; the shapes are right: if it is this network, rename {renamed}"
    return text


def _arrays_of(values: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    return {
        str(n): x for n, x in values.items() if isinstance(n, str) and isinstance(x, np.ndarray)
    }


def _state(
    found: _Found, optimizers: list[tuple[str, dict[str, Any]]], notes: list[str]
) -> tuple[State, float]:
    """Return weights with Adam's moments, of zero where there is no optimiser; and its rate."""
    if len(optimizers) > 1:
        where = ", ".join(path for path, _ in optimizers)
        raise CheckpointError(f"it has the states of several optimizers, under {where}")
    given = {own: found.arrays[name] for own, name in found.names.items()}
    params = plain_arrays(given, "params", notes)
    lr, step = Recipe.lr, 0
    m, v = ({name: np.zeros_like(array) for name, array in params.items()} for _ in range(2))
    for _, optimizer in optimizers:
        lr = learning_rate(optimizer)
        if optimizer["state"]:
            step, m, v = adam_moments(optimizer["state"], list(params), notes)
    params, m, v = ({name: arrays[name] for name in PARAMETERS} for arrays in (params, m, v))
    return State(params=params, adam_m=m, adam_v=v, step=step), lr


def _length(value: Any, known: dict[int, int]) -> int:
    """Return about how long it is as JSON, in which what is held twice is written twice."""
    if id(value) not in known:
        held = [*value, *value.values()] if isinstance(value, dict) else value
        if isinstance(value, dict | list | tuple):
            known[id(value)] = 2 + sum(_length(item, known) for item in held)
        else:
            known[id(value)] = len(str(value)) if isinstance(value, str | int | float) else 1
    return known[id(value)]
