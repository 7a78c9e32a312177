"""Records PyTorch's side of a pair, so that JAX's can be judged where the model does not import."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten

from parity.pairs.mapping.leaves import drawn
from parity.pairs.pair import Pair, PairError
from parity.pairs.torch_side.model import TorchSide, arrays, torch_side
from parity.pairs.torch_side.operations import Operations, mark, marked
from parity.pairs.torch_side.recording import Recording, Run, Step
from parity.pairs.torch_side.replayed import replayed

_READS = ("_local_scalar_dense", "nonzero", "is_nonzero")
"""Operations by which a program sees a tensor's values."""

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
    for dtype in (torch.float64, torch.float32):
        outputs = []
        for one in (side, again):
            one.set(values)
            found = arrays(one.run(pair.inputs, seen=_view, dtype=dtype))
            outputs.append([value.detach() for value in found])
        if not all(torch.equal(*map(_comparable, pair)) for pair in zip(*outputs, strict=True)):
            raise PairError(
                "the PyTorch side computes something else each time, or with other weights; it"
                " cannot be recorded"
            )
    return replace(recording, differentiable=_same_gradients(side, again, pair))


def _comparable(value: Tensor) -> Tensor:
    return value.nan_to_num() if value.is_floating_point() else value


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
        self._decided: set[Any] = set()
        """What depends on a leaf, by operation or name."""

    def seen(self, layer: str, way: str, place: int, call: int, value: Tensor) -> Tensor:
        """Keep which tensor a layer gets or gives, and let it be another one from there on."""
        name = f"seen:{layer}:{way}:{place}:{call}"
        reference = self.reference(value)
        self.steps.append({"seen": [layer, way, place, call], "ref": reference})
        if reference[0] in self._decided or str(reference[0]).startswith("leaf:"):
            self._decided.add(name)
        return self._own(mark(_view(layer, way, place, call, value), name))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        step: Step = {"op": str(func), "args": self._held(args)}
        step["kwargs"] = {name: self._held(value) for name, value in (kwargs or {}).items()}
        out = super().__torch_dispatch__(func, types, args, kwargs)
        made = self.made[-1]
        for result in tree_flatten(out)[0]:
            if isinstance(result, Tensor):
                self._own(result)
        given = [self.reference(x)[0] for x in tree_flatten((args, kwargs))[0]
                 if isinstance(x, Tensor)]  # fmt: skip
        if any(x in self._decided or str(x).startswith("leaf:") for x in given):
            self._decided.add(made.number)
            if made.name in _READS:
                raise PairError(
                    f"the PyTorch side's values decide what it computes ({made.source}), so that it"
                    " cannot be recorded"
                )
        self.steps.append({**step, "module": made.module, "line": made.source})
        return out

    def reference(self, value: Tensor) -> list[Any]:
        """Return what a tensor is known by: its operation and place, or its name."""
        made, place = marked(value)
        named = isinstance(made, str) and made.startswith(("leaf:", "input"))
        if not named and vars(value).get("_parity_run") is not self:  # of another run, or none
            made, place = f"constant:{len(self.constants)}", 0
            with _disable_current_modes():
                self.constants.append(value.detach().clone())
            self._own(mark(value, made))
        return [made, place]

    def _own(self, value: Tensor) -> Tensor:
        """Let the mark of a tensor be of this run."""
        vars(value)["_parity_run"] = self
        return value

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


def _view(_layer: str, _way: str, _place: int, _call: int, value: Tensor) -> Tensor:
    """Return what a layer gets or gives as another tensor, by no operation of the user's."""
    with _disable_current_modes():
        return value.view_as(value)


def _same_gradients(side: TorchSide, again: TorchSide, pair: Pair) -> bool:
    """Whether what was recorded has the gradients that the model has, at its leaves."""
    found, moving = [], []
    for one in (side, again):
        every = arrays(one.run(pair.inputs, seen=_view))
        moving.append([x.requires_grad for x in every])
        outputs = [x for x in every if x.requires_grad]
        rng = np.random.default_rng(1)
        given = [torch.from_numpy(rng.normal(size=tuple(x.shape))).to(x.dtype) for x in outputs]
        leaves = [
            one.tensors[name] for name, leaf in one.leaves.items()
            if leaf.trained and leaf.value.size
        ]  # fmt: skip
        taken = outputs and leaves
        found.append(
            torch.autograd.grad(outputs, leaves, given, allow_unused=True) if taken else ()
        )
    if moving[0] != moving[1]:
        return False
    for a, b in zip(*found, strict=True):
        if (a is None) != (b is None):
            return False
        if a is not None and not torch.allclose(
            a, b, rtol=0, atol=LIMIT * float(a.nan_to_num().abs().max()), equal_nan=True
        ):
            return False
    return True
