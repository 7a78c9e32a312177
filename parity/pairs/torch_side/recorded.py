"""PyTorch's run in float64: the values at its layers, and the operations between."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from parity.pairs.torch_side.model import TorchSide, arrays
from parity.pairs.torch_side.operations import (
    Operation,
    Operations,
    Region,
    Variant,
    laid_out,
    mark,
    marked,
)

Key = tuple[str, str, int]
"""(PyTorch's name of a layer, in or out, call); the model's outputs are ("output", "in", 0)."""
OUTPUT = "output"


def _add_stacked(found: "Recorded", layers: set[str], key: Key) -> None:
    """Add the arrays of the parts of a layer, and of the layers that are one in JAX."""
    name, way, call = key
    for layer in layers:
        if "#" in layer and layer.split("#")[0] == name:
            i, n = map(int, layer.split("#")[1].split("/"))
            found.arrays[layer, way, call] = [
                np.split(x, n, axis=1 if x.ndim == 4 else -1)[i] if way == "out" else x
                for x in found.arrays[key]
            ]
            found.made_by[layer, way, call, 0] = found.made_by[*key, 0]
        elif "+" in layer and layer.split("+")[-1] == name:
            parts = [found.arrays.get((part, way, call)) for part in layer.split("+")]
            if all(parts):
                first = [part[0] for part in parts if part]
                found.arrays[layer, way, call] = (
                    [np.concatenate(first, axis=-1)] if way == "out" else [first[0]]
                )
                for place, part in enumerate(layer.split("+")):
                    found.made_by[layer, way, call, place] = found.made_by[part, way, call, 0]


@dataclass
class Recorded:
    """PyTorch's run: what went into each layer and came out of it, and the operations between."""

    arrays: dict[Key, list[np.ndarray]] = field(default_factory=dict)
    made_by: dict[tuple[str, str, int, int], "int | str"] = field(default_factory=dict)
    """By key and place among the arrays: the operation that made it."""
    places: dict[tuple[str, str, int, int], int] = field(default_factory=dict)
    """Likewise: which of the operation's results it is."""
    operations: Sequence[Any] = ()

    def slice(self, key: Key) -> tuple[list[int], list[str]]:
        """Return the operations that a value is made by since the layers before it, and these."""
        todo = [made for (*of, _), made in self.made_by.items() if tuple(of) == key]
        numbers: set[int] = set()
        names: dict[str, None] = {}
        while todo:
            made = todo.pop()
            if isinstance(made, str):
                names[made] = None
            elif made not in numbers:
                numbers.add(made)
                todo += self.operations[made].parents
        return sorted(numbers), list(names)


def record(
    side: TorchSide,
    inputs: Sequence[Any],
    layers: set[str],
    *,
    variants: Mapping[int, Variant] | None = None,
    like: Sequence[Operation] = (),
    forced: Mapping[Key, list[np.ndarray]] | None = None,
    widen: bool = False,
    keep: Region | None = None,
) -> Recorded:
    """Run PyTorch's side and keep the values at its layers; `forced` ones are put in their place.

    `variants` are computed in place of the operations of these numbers, which `like` are listed in.
    """
    found = Recorded()
    watched = {part for layer in layers for part in layer.split("#")[0].split("+")}

    def seen(layer: str, way: str, place: int, call: int, value: Any) -> Any:
        if layer not in watched:
            return value
        key = (layer, way, call)
        found.made_by[(*key, place)], found.places[(*key, place)] = marked(value)
        found.arrays.setdefault(key, []).append(_numpy(value))
        _add_stacked(found, layers, key)
        with _disable_current_modes():  # these operations are not the user's
            if forced is not None and place < len(forced.get(key, ())):
                value = laid_out(torch.from_numpy(forced[key][place].copy()), value.stride())
            return mark(value.view_as(value), f"{layer}:{way}")

    mode = Operations(variants=variants, like=like, widen=widen, keep=keep)
    with torch.no_grad():
        outputs = arrays(side.run(inputs, seen=seen, mode=mode))
        for place, value in enumerate(outputs):
            at = (OUTPUT, "in", 0, place)
            found.made_by[at], found.places[at] = marked(value)
        found.arrays[(OUTPUT, "in", 0)] = [_numpy(value) for value in outputs]
    found.operations = mode.made
    return found


def _numpy(value: Any) -> np.ndarray:
    value = value.detach()
    return (value.double() if value.is_floating_point() else value).numpy().copy()
