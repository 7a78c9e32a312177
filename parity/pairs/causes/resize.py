"""Causes in resizing: corners, antialiasing, kernel."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from parity.pairs.causes.candidates import Candidate, Literals, of
from parity.pairs.torch_side.operations import Operation, Variant

_OPERATIONS = (
    *("upsample_bilinear2d", "upsample_bicubic2d", "upsample_nearest2d", "upsample_linear1d"),
    *("_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
    *("upsample_trilinear3d", "upsample_nearest1d"),
)


@of(*_OPERATIONS)
def resize(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """A resize with other corners, antialiasing, or cubic kernel."""
    size = operation.shape[2:]
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    if "nearest" in operation.name:
        yield from _nearest(operation, size, linear)
        return
    cubic = "bicubic" in operation.name
    mode = "bicubic" if cubic else linear
    antialiased, corners = operation.name.endswith("_aa"), True in operation.scalars
    yield Candidate(
        "resize-align-corners",
        f"align_corners={corners} in PyTorch, not so in JAX",
        "sample at PyTorch's places",
        _to(size, mode, align_corners=not corners),
    )
    for antialias in (antialiased, not antialiased) if cubic else ():
        yield Candidate(
            "resize-cubic",
            "PyTorch: cubic with a = -0.75; JAX: a = -0.5"
            + ("" if antialias == antialiased else ", and antialiased otherwise"),
            "jax.image.scale_and_translate with a kernel of a = -0.75",
            lambda _, args, __, aa=antialias: _keys(args[0], size, aa),
        )
    if len(size) == 2:
        yield Candidate(
            "resize-antialias",
            f"PyTorch: {'with' if antialiased else 'no'} antialiasing; JAX: the other",
            f"antialias={antialiased} in jax.image.resize",
            _to(size, mode, align_corners=False, antialias=not antialiased),
        )
    for other in ("nearest", "nearest-exact", linear, "bicubic"):
        if other != mode and (other != "bicubic" or len(size) == 2):
            options = {} if "nearest" in other else {"align_corners": False}
            what, fix = f"PyTorch: {mode}; JAX: {other}", f"method={mode!r} in JAX"
            yield Candidate("resize-method", what, fix, _to(size, other, **options))


def _nearest(operation: Operation, size: tuple[int, ...], linear: str) -> Iterator[Candidate]:
    yield Candidate(
        "resize-nearest",
        "the sides take another nearest pixel",
        "PyTorch's nearest takes floor(i * scale)",
        _to(size, "nearest" if "exact" in operation.name else "nearest-exact"),
    )
    yield Candidate(
        "resize-method",
        "JAX interpolates linearly",
        "method='nearest' in JAX",
        _to(size, linear, align_corners=False),
    )


def _to(size: tuple[int, ...], mode: str, **options: Any) -> Variant:
    return lambda _, args, __: F.interpolate(args[0], size=size, mode=mode, **options)


def _keys(x: Tensor, size: Sequence[int], antialias: bool) -> Tensor:
    """Resize by Keys' cubic kernel of a = -0.5, weights normalised inside (jax.image.resize)."""
    for axis, out in zip(range(2, x.ndim), size, strict=True):
        length = x.shape[axis]
        scale = out / length
        width = max(1 / scale, 1.0) if antialias else 1.0
        centre = (torch.arange(out, dtype=x.dtype) + 0.5) / scale - 0.5
        t = (centre[None] - torch.arange(length, dtype=x.dtype)[:, None]).abs() / width
        near = ((1.5 * t - 2.5) * t) * t + 1
        far = ((-0.5 * t + 2.5) * t - 4) * t + 2
        weights = torch.where(t >= 1, far, near)
        weights = torch.where(t >= 2, torch.zeros_like(t), weights)
        weights = weights / weights.sum(0, keepdim=True)
        x = torch.tensordot(x.movedim(axis, -1), weights, 1).movedim(-1, axis)
    return x
