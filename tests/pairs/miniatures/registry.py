"""What a miniature is, and how one is written: a builder, and what its proof has to find."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
import torch

from parity.pairs.pair import Pair

Build = Callable[..., Pair]


@dataclass(frozen=True)
class Expected:
    """A mistake that a miniature has: where, and which."""

    stage: Literal["forward", "gradients", "training"]
    kind: Literal["inside", "between"]
    torch: str | tuple[str, str]
    """PyTorch's layer, or the two between which the code lies, in calling order; before the first
    it is `input`, after the last `output`. A loss lies between `output` and `loss`, an optimiser
    is the layer `optimizer`."""
    cause: str


@dataclass(frozen=True)
class Miniature:
    """A small pair, and everything that its proof has to find."""

    name: str
    build: Callable[[int], Pair]
    """Builds both sides anew; the random seed is of the weights and of the inputs."""
    differences: tuple[Expected, ...] = ()
    notes: tuple[str, ...] = ()
    """Words that the proof's notes have to say."""


MINIATURES: dict[str, Miniature] = {}
"""Each miniature by its name."""


def inside(layer: str, cause: str, stage: Literal["forward", "training"] = "forward") -> Expected:
    """Return a mistake of a layer that owns weights, or of the optimiser."""
    return Expected(stage, "inside", layer, cause)


def between(
    first: str, second: str, cause: str, stage: Literal["forward", "gradients"] = "forward"
) -> Expected:
    """Return a mistake in the code between two layers."""
    return Expected(stage, "between", (first, second), cause)


def right(name: str, *, notes: tuple[str, ...] = (), **options: Any) -> Callable[[Build], Build]:
    """Register what a builder makes with these options as one computation, written twice."""
    return _register(name, (), notes, options)


def wrong(name: str, *differences: Expected, **options: Any) -> Callable[[Build], Build]:
    """Register what a builder makes with these options as different: all that is."""
    assert differences
    return _register(name, differences, (), options)


def _register(
    name: str, differences: tuple[Expected, ...], notes: tuple[str, ...], options: dict[str, Any]
) -> Callable[[Build], Build]:
    def register(build: Build) -> Build:
        assert name not in MINIATURES, f"two miniatures are named {name}"
        seeded = partial(_build, partial(build, **options))
        MINIATURES[name] = Miniature(name, seeded, differences, notes)
        return build

    return register


def _build(build: Build, seed: int) -> Pair:
    # the default generator of JAX takes seconds to compile for each shape
    with torch.random.fork_rng(devices=[]), jax.default_prng_impl("unsafe_rbg"):
        torch.manual_seed(seed)
        return build(seed)


def floats(seed: int, *shape: int) -> np.ndarray:
    """Return normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tokens(seed: int, below: int, *shape: int) -> np.ndarray:
    """Return whole numbers from 0."""
    return np.random.default_rng(seed).integers(0, below, shape)
