"""Mixtures of experts, each expert a layer or all of them one array."""

from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import between, floats, right, wrong


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Linear(12, 20)
        self.w2 = nn.Linear(20, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.gelu(self.w1(x)))


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(12, 4, bias=False)
        self.experts = nn.ModuleList([Expert() for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2)
        weights = weights / weights.sum(-1, keepdim=True)
        gates = torch.zeros(*x.shape[:-1], 4, dtype=x.dtype).scatter(-1, chosen, weights)
        return sum((gates[..., i, None] * f(x) for i, f in enumerate(self.experts)), 0 * x)


class FlaxMixture(nnx.Module):
    """It normalises after the choice: the softmax of the chosen two is the same."""

    def __init__(self, rngs: nnx.Rngs, axis: int, normalised: bool) -> None:
        self.axis, self.normalised = axis, normalised
        self.gate = nnx.Linear(12, 4, use_bias=False, rngs=rngs)
        self.wi = nnx.List([nnx.Linear(12, 20, rngs=rngs) for _ in range(4)])
        self.wo = nnx.List([nnx.Linear(20, 12, rngs=rngs) for _ in range(4)])

    def __call__(self, x: Any) -> Any:
        logits = self.gate(x)
        best, chosen = jax.lax.top_k(logits, 2)
        if self.normalised:
            weights = jax.nn.softmax(best, self.axis)
        else:
            weights = jnp.take_along_axis(jax.nn.softmax(logits, -1), chosen, -1)
        gates = jnp.einsum("...k,...ke->...e", weights, jax.nn.one_hot(chosen, 4, dtype=x.dtype))
        outputs = [
            wo(jax.nn.gelu(wi(x), approximate=False))
            for wi, wo in zip(self.wi, self.wo, strict=True)
        ]
        return jnp.einsum("...e,e...d->...d", gates, jnp.stack(outputs))


@right("experts")
@wrong(
    "experts-not-normalised", between("experts.3.w2", "output", "topk-normalised"), normalised=False
)
@wrong("experts-softmax-axis", between("experts.3.w2", "output", "softmax-axis"), axis=1)
def experts(seed: int, *, axis: int = -1, normalised: bool = True) -> Pair:
    flax = FlaxMixture(nnx.Rngs(seed), axis, normalised)
    return Pair(torch=Mixture(), jax=flax, inputs=(floats(seed, 2, 5, 12),))


class Stacked(nn.Module):
    """All experts in one array; Linear's way round."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 14, 9))
        self.bias = nn.Parameter(torch.zeros(3, 14))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,eoi->beo", x, self.weight) + self.bias


class SoftMixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gating = nn.Linear(9, 3)
        self.experts = Stacked()
        self.head = nn.Linear(14, 2)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gating(x).div(0.5).softmax(-1)
        return self.head(torch.einsum("be,beo->bo", gates, F.mish(self.experts(x))))


def soft_port(params: Any, x: Any, temperature: float) -> Any:
    kernels, biases, head = params["kernels"], params["biases"], params["head"]
    gates = jax.nn.softmax((x @ params["route"] + params["route_bias"]) / temperature)
    hidden = [jax.nn.mish(x @ w + b) for w, b in zip(kernels, biases, strict=True)]
    return sum(gates[:, i, None] * h for i, h in enumerate(hidden)) @ head["w"] + head["b"]


@right("soft-experts")
@wrong("soft-experts-temperature", between("gating", "experts", "scale"), temperature=1.0)
def soft_experts(seed: int, *, temperature: float = 0.5) -> Pair:
    """One array of three experts against three arrays of one."""
    params = {
        "route": jnp.asarray(floats(seed, 9, 3)),
        "route_bias": jnp.zeros(3),
        "kernels": [jnp.asarray(floats(seed + i, 9, 14)) for i in range(3)],
        "biases": [jnp.zeros(14) for _ in range(3)],
        "head": {"w": jnp.asarray(floats(seed, 14, 2)), "b": jnp.zeros(2)},
    }

    def port(params: Any, x: Any) -> Any:
        return soft_port(params, x, temperature)

    return Pair(torch=SoftMixture(), jax=(port, params), inputs=(floats(seed, 3, 9),))
