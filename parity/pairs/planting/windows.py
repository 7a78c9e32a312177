"""Mistakes in convolutions and pooling."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from parity.pairs.planting.sites import Mistake, Site, of


@of("conv_general_dilated")
def _convolution(site: Site) -> Iterator[Mistake]:
    numbers, padding = site.params["dimension_numbers"], site.params["padding"]
    spatial = numbers.rhs_spec[2:]
    if any(site.shape(1)[axis] > 1 for axis in spatial):
        yield "kernel-flipped", lambda x, k: site.compute([x, jnp.flip(k, spatial)])
    moved = _shifted(padding)
    if moved != tuple(padding):
        yield "padding", lambda x, k: site.compute([x, k], padding=moved)


def _shifted(padding: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the other side's padding: the larger half in front, or one more there."""
    if all(low == high for low, high in padding):
        return tuple((low + 1, high - 1) if high > 0 else (low, high) for low, high in padding)
    return tuple((high, low) for low, high in padding)


@of("reduce_window_max", "reduce_window_sum")
def _pooling(site: Site) -> Iterator[Mistake]:
    moved = _shifted(site.params["padding"])
    if moved != tuple(site.params["padding"]):
        yield "pool-padding", lambda x: site.compute([x], padding=moved)
    window = site.params["window_dimensions"]
    if site.equation.primitive.name != "reduce_window_max" or math.prod(window) == 1:
        return

    def average(x: Any) -> list[Any]:
        names = ("window_strides", "padding", "base_dilation", "window_dilation")
        how = (site.params[name] for name in names)
        total = lax.reduce_window(x, jnp.zeros((), x.dtype), lax.add, window, *how)
        return [total / math.prod(window)]

    yield "pool-kind", average


@of("pad")
def _pad(site: Site) -> Iterator[Mistake]:
    config = site.params["padding_config"]
    moved = _shifted([(low, high) for low, high, _ in config])
    if moved != tuple((low, high) for low, high, _ in config):
        config = tuple((*sides, inner) for sides, (_, _, inner) in zip(moved, config, strict=True))
        yield "padding", lambda x, v: site.compute([x, v], padding_config=config)
