"""Records PyTorch's side of a pair, so that JAX's can be judged where the model does not import."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from parity.pairs.leaves import drawn
from parity.pairs.operations import Operations, mark
from parity.pairs.pair import Pair, PairError
from parity.pairs.recording import Recording, Run, Step
from parity.pairs.replayed import replayed
from parity.pairs.torch_side import TorchSide, arrays, torch_side

LIMIT = 1e-10
"""Of gradients: as far apart as two ways of taking them may be, in float64."""


def recorded(pair: Pair) -> Recording:
    """Record PyTorch's side of a pair, with gradients on, for which it may have other operations.

    PairError: it cannot be called as it is, or its values decide what it computes.
    """
    if pair.torch is None:
        raise PairError("Pair: torch is missing, which is what is recorded")
    with torch.enable_grad():
        return _recorded(torch_side(pair), pair)


def _recorded(side: TorchSide, pair: Pair) -> Recording:
    constants: dict[str, np.ndarray] = {}
    runs = {
        name: _run(side, pair, dtype, constants)
        for name, dtype in (("float64", torch.float64), ("float32", torch.float32))
    }
    recording = Recording(
        list(side.leaves.values()),
        side.aliases,
        dict(side.calls),
        tuple(pair.inputs),
        runs,
        constants,
        differentiable=True,
    )
    rng = np.random.default_rng(0)
    values = {name: drawn(leaf, rng) for name, leaf in side.leaves.items()}
    again = replayed(recording, pair)
    outputs = []
    for one in (side, again):
        one.set(values)
        outputs.append(arrays(one.run(pair.inputs, seen=_view)))
    same = [torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(*outputs, strict=True)]
    if not all(same):
        raise PairError(
            "the PyTorch side computes something else with other weights; it cannot be recorded"
        )
    return replace(recording, differentiable=_same_gradients(side, again, pair))


def _run(side: TorchSide, pair: Pair, dtype: torch.dtype, constants: dict[str, np.ndarray]) -> Run:
    for name, value in side.tensors.items():
        mark(value, f"leaf:{name}")
    recorder = _Recorder()
    outputs = arrays(side.run(pair.inputs, seen=recorder.seen, mode=recorder, dtype=dtype))
    ends = [recorder.reference(value) for value in outputs]
    start = str(dtype)[6:]
    for number, value in enumerate(recorder.constants):
        wide = value.double() if value.is_floating_point() else value
        constants[f"{start}.{number}"] = wide.numpy()
    types = [str(value.dtype)[6:] for value in recorder.constants]
    return Run(recorder.steps, ends, types)


class _Recorder(Operations):
    """Keeps each operation with references to what made its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.constants: list[Tensor] = []

    def seen(self, layer: str, way: str, place: int, call: int, value: Tensor) -> Tensor:
        """Keep which tensor a layer gets or gives, and let it be another one from there on."""
        name = f"seen:{layer}:{way}:{place}:{call}"
        self.steps.append({"seen": [layer, way, place, call], "ref": self.reference(value)})
        return mark(_view(layer, way, place, call, value), name)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        step: Step = {"op": str(func), "args": self._held(args)}
        step["kwargs"] = {name: self._held(value) for name, value in (kwargs or {}).items()}
        out = super().__torch_dispatch__(func, types, args, kwargs)
        made = self.made[-1]
        self.steps.append({**step, "module": made.module, "line": made.source})
        return out

    def reference(self, value: Tensor) -> list[Any]:
        """Return what a tensor is known by: its operation and place, or its name."""
        made = getattr(value, "_parity", None)
        if isinstance(made, str) and made.startswith("seen:"):
            return [made, 0]
        if made is None:
            made = f"constant:{len(self.constants)}"
            self.constants.append(value.detach().clone())
            mark(value, made)
        return [made, getattr(value, "_parity_place", 0)]

    def _held(self, value: Any) -> Any:
        """Return an argument as JSON has it."""
        if isinstance(value, Tensor):
            return {"ref": self.reference(value)}
        if isinstance(value, list | tuple):
            return [self._held(item) for item in value]
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        for kind in (torch.dtype, torch.layout, torch.memory_format):
            if isinstance(value, kind):
                return {"torch": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise PairError(f"the PyTorch side cannot be recorded: an operation gets {value!r}")


def _view(layer: str, way: str, place: int, call: int, value: Tensor) -> Tensor:  # noqa: ARG001
    """Return what a layer gets or gives as another tensor, by no operation of the user's."""
    with _disable_current_modes():
        return value.view_as(value)


def _same_gradients(side: TorchSide, again: TorchSide, pair: Pair) -> bool:
    """Whether what was recorded has the gradients that the model has, at its leaves."""
    found = []
    for one in (side, again):
        outputs = [x for x in arrays(one.run(pair.inputs, seen=_view)) if x.requires_grad]
        rng = np.random.default_rng(1)
        given = [torch.from_numpy(rng.normal(size=tuple(x.shape))) for x in outputs]
        leaves = [one.tensors[name] for name, leaf in one.leaves.items() if leaf.trained]
        found.append(
            torch.autograd.grad(outputs, leaves, given, allow_unused=True)
            if outputs and leaves
            else ()
        )
    for a, b in zip(*found, strict=True):
        if (a is None) != (b is None):
            return False
        if a is not None and (a - b).abs().max() > LIMIT * a.abs().max():
            return False
    return True
