"""Causes in resizing: corners, antialiasing, kernel."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from parity.pairs.causes import Candidate, Literals, of
from parity.pairs.operations import Operation


@of(
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_nearest2d",
    "_upsample_nearest_exact2d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "upsample_linear1d",
    "upsample_trilinear3d",
    "upsample_nearest1d",
)
def resize(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """A resize with other corners, antialiasing, or cubic kernel."""
    size = operation.shape[2:]
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]

    def to(mode: str, **options: Any) -> Any:
        return lambda _, args, __: F.interpolate(args[0], size=size, mode=mode, **options)

    cubic = "bicubic" in operation.name
    mode = "bicubic" if cubic else linear
    antialiased, corners = operation.name.endswith("_aa"), True in operation.scalars
    if "nearest" in operation.name:
        exact = "exact" in operation.name
        yield Candidate(
            "resize-nearest",
            "the sides take another nearest pixel",
            "PyTorch's nearest takes floor(i * scale)",
            to("nearest" if exact else "nearest-exact"),
        )
        yield Candidate(
            "resize-method",
            "JAX interpolates linearly",
            "method='nearest' in JAX",
            to(linear, align_corners=False),
        )
        return
    yield Candidate(
        "resize-align-corners",
        f"align_corners={corners} in PyTorch, not so in JAX",
        "sample at PyTorch's places",
        to(mode, align_corners=not corners),
    )
    if cubic:
        for antialias in (antialiased, not antialiased):
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
            to(mode, align_corners=False, antialias=not antialiased),
        )
    for other in ("nearest", "nearest-exact", linear, "bicubic"):
        if other != mode and (other != "bicubic" or len(size) == 2):
            options = {} if "nearest" in other else {"align_corners": False}
            yield Candidate(
                "resize-method",
                f"PyTorch: {mode}; JAX: {other}",
                f"method={mode!r} in JAX",
                to(other, **options),
            )


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
