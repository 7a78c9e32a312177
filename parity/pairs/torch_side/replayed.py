"""PyTorch's side of a pair, made again from a recording."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from parity.pairs.pair import Pair, PairError
from parity.pairs.torch_side.model import Seen, TorchSide
from parity.pairs.torch_side.operations import Operations
from parity.pairs.torch_side.recording import Recording, Run

_LIBRARIES = ("aten", "prims")
_REFUSED = ("from_file",)
"""Operations that reach out of the process."""


@dataclass
class ReplayedSide(TorchSide):
    """A recorded PyTorch model, whose leaves can be replaced; `net` is the recording."""

    @contextlib.contextmanager
    def _ready(
        self, train: bool, seen: Seen | None, operations: Operations | None
    ) -> Iterator[Callable[..., Any]]:
        if train:
            raise PairError("a recording holds no training; give the PyTorch side itself")
        name = str(torch.get_default_dtype())[6:]
        run = self.net.runs[name]
        self.calls.update(self.net.calls)
        values: dict[tuple[Any, int], Tensor] = {
            (f"leaf:{leaf}", 0): value for leaf, value in self.tensors.items()
        }
        for number, kind in enumerate(run.constants):
            constant = torch.from_numpy(np.array(self.net.arrays[f"{name}.{number}"]))
            values[f"constant:{number}", 0] = constant.to(word(kind))

        def call(*inputs: Tensor) -> list[Tensor]:
            for place, x in enumerate(inputs):
                values[f"input{place if len(inputs) > 1 else ''}", 0] = x
            return _Replay(values, seen, operations)(run)

        yield call


class _Replay:
    def __init__(
        self,
        values: dict[tuple[Any, int], Tensor],
        seen: Seen | None,
        operations: Operations | None,
    ) -> None:
        self._values = values
        """By the operation that made them and the place in what it made, or by name."""
        self._seen, self._operations = seen, operations

    def __call__(self, run: Run) -> list[Tensor]:
        made = 0
        for step in run.steps:
            if "op" in step:
                self._make(step, made)
                made += 1
                continue
            layer, way, place, call = step["seen"]
            value = self._read(step["ref"])
            if self._seen is not None:
                value = self._seen(layer, way, place, call, value)
            self._values[f"seen:{layer}:{way}:{place}:{call}", 0] = value
        return [self._read(output) for output in run.outputs]

    def _read(self, reference: Sequence[Any]) -> Tensor:
        made, place = reference
        return self._values[made, place]

    def _make(self, step: dict[str, Any], number: int) -> None:
        if self._operations:
            self._operations.modules[:] = [step["module"]]
            self._operations.line = step["line"]
        args = self._given(step["args"])
        kwargs = {name: self._given(value) for name, value in step["kwargs"].items()}
        # by its method, which the search for causes replaces
        detach = step["op"] == "aten.detach.default"
        make = torch.Tensor.detach if detach else _operation(step["op"])
        made = make(*args, **kwargs)
        results = [x for x in tree_flatten(made)[0] if isinstance(x, Tensor)]
        for place, result in enumerate(results):
            self._values[number, place] = result

    def _given(self, held: Any) -> Any:
        """Return an argument as it was given."""
        if isinstance(held, list):
            return [self._given(item) for item in held]
        if not isinstance(held, dict):
            return held
        if "ref" in held:
            return self._read(held["ref"])
        if "torch" in held:
            return word(held["torch"])
        if "device" in held:
            return torch.device(held["device"])
        return complex(*held["complex"])


def word(name: str) -> Any:
    """Return a type, a layout or a memory format. PairError: it is none."""
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype | torch.layout | torch.memory_format):
        raise PairError(f"the recording has {name!r}, which is no type of PyTorch's")
    return found


def _operation(name: str) -> Callable[..., Any]:
    library, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    found = None
    if library in _LIBRARIES and packet not in _REFUSED:
        found = getattr(getattr(getattr(torch.ops, library), packet, None), overload, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise PairError(f"the recording has the operation {name}, which is not known here")
    return found


def replayed(recording: Recording, pair: Pair) -> ReplayedSide:
    """Return the side of a recording."""
    tensors = {
        leaf.name: torch.from_numpy(leaf.value.astype(np.float64)).requires_grad_(leaf.trained)
        for leaf in recording.leaves
    }
    aliases = {owner: tuple(names) for owner, names in recording.aliases.items()}
    leaves = {leaf.name: leaf for leaf in recording.leaves}
    return ReplayedSide(leaves, recording, pair, tensors, aliases=aliases)
