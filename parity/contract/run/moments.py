"""Arrays that other programs saved, as float32 or float64, and Adam's moments among them."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.contract.errors import CheckpointError
from parity.contract.recipe import ADAM_B1, ADAM_B2, ADAM_EPS
from parity.contract.state import PARAMETERS, Arrays

_LOWER = {"float16", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
          "float8_e5m2fnuz"}  # fmt: skip
"""What float32 holds without loss."""

_ADAM = {
    "betas": (ADAM_B1, ADAM_B2), "eps": ADAM_EPS, "weight_decay": 0, "amsgrad": False,
    "maximize": False,
}  # fmt: skip
"""The recipe's Adam in PyTorch's words."""


def plain_arrays(arrays: Mapping[str, Any], group: str, notes: list[str]) -> Arrays:
    """Return arrays of the network's shapes, lower precision widened to float32, and a note of it.

    CheckpointError: one is no array, or has another shape, and is not copied; it is named with the
    group that it is of.
    """
    for name, array in arrays.items():
        shape = PARAMETERS[name].shape
        if not isinstance(array, np.ndarray):
            raise CheckpointError(f"{group}.{name} is {type(array).__name__}, expected a tensor")
        if array.shape != shape:
            got = f"{array.dtype} {array.shape}"
            raise CheckpointError(f"{group}.{name}: expected {shape}, got {got}")
    lower = {array.dtype.name for array in arrays.values()} & _LOWER
    if lower:
        notes.append(f"{' and '.join(sorted(lower))} widened to float32")
    return {
        name: np.array(
            array, np.float32 if array.dtype.name in _LOWER else array.dtype.newbyteorder("=")
        )
        for name, array in arrays.items()
    }


def adam_moments(
    tables: Mapping[Any, Any], names: Sequence[str], notes: list[str]
) -> tuple[int, Arrays, Arrays]:
    """Return step, first and second moments of Adam's state_dict of parameters in that order."""
    if set(tables) != set(range(len(names))):
        raise CheckpointError(f"its optimizer has moments of the parameters {sorted(tables)}")
    by_name = {name: tables[index] for index, name in enumerate(names)}
    for name, table in by_name.items():
        if not isinstance(table, dict) or set(table) != {"step", "exp_avg", "exp_avg_sq"}:
            raise CheckpointError(f"its optimizer must have step, exp_avg, exp_avg_sq of {name}")
    steps = {_count(table["step"], name) for name, table in by_name.items()}
    if len(steps) != 1 or not min(steps).is_integer():
        raise CheckpointError(f"Adam has made different numbers of steps: {sorted(steps)}")
    m, v = (
        plain_arrays({name: table[key] for name, table in by_name.items()}, group, notes)
        for group, key in (("adam_m", "exp_avg"), ("adam_v", "exp_avg_sq"))
    )
    return int(steps.pop()), m, v


def _count(step: Any, name: str) -> float:
    if isinstance(step, np.ndarray) and step.shape == ():
        return float(step)
    if isinstance(step, int | float) and not isinstance(step, bool):  # before PyTorch 1.12
        return float(step)
    what = f"shape {step.shape}" if isinstance(step, np.ndarray) else type(step).__name__
    raise CheckpointError(f"the step of {name} is {what}, expected a number")


def learning_rate(optimizer: Any) -> float:
    """Return an optimiser's learning rate; CheckpointError if it is not the recipe's Adam."""
    match optimizer:
        case {"state": dict(), "param_groups": [dict() as group]}:
            pass
        case _:
            raise CheckpointError("its optimizer must have state, and param_groups with one group")
    adam = {"params": [*range(len(PARAMETERS))], **_ADAM}
    for key, expected in adam.items():
        got = group.get(key, expected if key == "maximize" else None)
        if not isinstance(got, int | float | tuple | list) or not _same(got, expected):
            raise CheckpointError(
                f"its optimizer has {key} {reprlib.repr(got)}, expected {expected!r} as the"
                " recipe's Adam; to take the weights without it, save model.state_dict() alone"
            )
    lr = group.get("lr")
    if isinstance(lr, np.ndarray) and lr.shape == ():
        lr = lr.item()
    if not isinstance(lr, int | float):
        raise CheckpointError(f"its optimizer has lr {reprlib.repr(lr)}, expected a number")
    return float(lr)


def _same(got: Any, expected: Any) -> bool:
    if isinstance(expected, tuple | list):
        numbers = isinstance(got, tuple | list) and all(isinstance(x, int | float) for x in got)
        return numbers and [*got] == [*expected]
    return got == expected
