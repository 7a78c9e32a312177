"""Functions in which parts are taken, put together, repeated or moved in another order."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from torch import Tensor

from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import between, floats, right, wrong


def _wrong(name: str, cause: str, **options: Any) -> Any:
    return wrong(name, between("input", "output", cause), **options)


def gated(x: Tensor) -> Tensor:
    values, gate = x.chunk(2, -1)
    return values.tanh() * F.gelu(gate)


def gated_port(x: Any, first: int) -> Any:
    parts = jnp.split(x, 2, -1)
    return jnp.tanh(parts[first]) * jax.nn.gelu(parts[1 - first], approximate=False)


def repeated(x: Tensor) -> Tensor:
    return (x.repeat_interleave(3, dim=1) * torch.arange(12.0)[:, None]).softmax(-1)


def repeated_port(x: Any, repeat: Callable[[Any], Any]) -> Any:
    return jax.nn.softmax(repeat(x) * jnp.arange(12.0)[:, None])


def causal(x: Tensor) -> Tensor:
    return F.conv1d(F.pad(x, (2, 0)), torch.tensor([[[0.5, -1.0, 2.0]]]).to(x))


def chomped(x: Tensor) -> Tensor:
    return F.conv1d(x, torch.tensor([[[0.5, -1.0, 2.0]]]).to(x), padding=2)[..., :-2]


def causal_port(x: Any, pads: tuple[int, int]) -> Any:
    kernel = jnp.array([0.5, -1.0, 2.0], x.dtype)[None, None]
    return jax.lax.conv_general_dilated(x, kernel, (1,), [pads])


@right("o-gated", shape=(2, 5, 8), ours=gated, theirs=lambda x: gated_port(x, 0))
@right(
    "o-repeated",
    shape=(2, 4, 6),
    ours=repeated,
    theirs=lambda x: repeated_port(x, lambda y: jnp.repeat(y, 3, 1)),
)
@right("o-causal", shape=(2, 1, 9), ours=causal, theirs=lambda x: causal_port(x, (2, 0)))
@_wrong("o-halves", "parts-order", shape=(2, 5, 8), ours=gated, theirs=lambda x: gated_port(x, 1))
@_wrong(
    "o-glu",
    "parts-order",
    shape=(2, 5, 8),
    ours=lambda x: F.glu(x, -1),
    theirs=lambda x: jax.nn.sigmoid(x[..., :4]) * x[..., 4:],
)
@_wrong(
    "o-joined",
    "parts-order",
    shape=(2, 5, 8),
    ours=lambda x: torch.cat([x.sin(), x.cos()], -1),
    theirs=lambda x: jnp.concatenate([jnp.cos(x), jnp.sin(x)], -1),
)
@_wrong(
    "o-rolled",
    "roll-direction",
    shape=(2, 5, 8),
    ours=lambda x: x.roll(2, 1).cumsum(1),
    theirs=lambda x: jnp.cumsum(jnp.roll(x, -2, 1), 1),
)
@_wrong(
    "o-tiled",
    "repeat-order",
    shape=(2, 4, 6),
    ours=repeated,
    theirs=lambda x: repeated_port(x, lambda y: jnp.tile(y, (1, 3, 1))),
)
@_wrong(
    "o-repeated-in-place",
    "repeat-order",
    shape=(4, 6),
    ours=lambda x: x.repeat(3, 1).cumsum(0),
    theirs=lambda x: jnp.cumsum(jnp.repeat(x, 3, 0), 0),
)
@_wrong("o-same", "padding", shape=(2, 1, 9), ours=causal, theirs=lambda x: causal_port(x, (1, 1)))
@_wrong(
    "o-same-chomped",
    "padding",
    shape=(2, 1, 9),
    ours=chomped,
    theirs=lambda x: causal_port(x, (1, 1)),
)
@_wrong(
    "o-rotated",
    "transposed",
    shape=(2, 5, 5),
    ours=lambda x: x @ x.exp(),
    theirs=lambda x: x @ jnp.exp(x).swapaxes(1, 2),
)
@_wrong(
    "o-unmasked",
    "mask-missing",
    shape=(2, 5, 5),
    ours=lambda x: (x + torch.full((5, 5), -torch.inf).triu(1)).softmax(-1),
    theirs=jax.nn.softmax,
)
@_wrong(
    "o-exponent",
    "scale",
    shape=(2, 5, 8),
    ours=lambda x: (-0.5 * x**2).exp(),
    theirs=lambda x: jnp.exp(-(x**2)),
)
def moved(
    seed: int,
    *,
    shape: tuple[int, ...],
    ours: Callable[..., Tensor],
    theirs: Callable[..., jax.Array],
) -> Pair:
    return Pair(torch=ours, jax=theirs, inputs=(floats(seed, *shape),))
