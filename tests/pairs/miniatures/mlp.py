"""Perceptrons: activations, normalisations, layer scale, odd shapes of weights and outputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import linen, nnx
from torch import Tensor, nn

from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import between, floats, inside, right, wrong


def written_out_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


class Perceptron(nn.Module):
    def __init__(self, bias: bool = True, written_out: bool = False) -> None:
        super().__init__()
        self.activation = written_out_gelu if written_out else F.gelu
        self.fc1 = nn.Linear(12, 32)
        self.norm = nn.LayerNorm(32)
        self.fc2 = nn.Linear(32, 10, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.norm(self.activation(self.fc1(x))))


class FlaxPerceptron(nnx.Module):
    def __init__(
        self,
        activation: Callable[..., Any],
        epsilon: float,
        dtype: Any,
        after: Callable[..., Any],
        rngs: nnx.Rngs,
    ) -> None:
        self.activation, self.after = activation, after
        self.up = nnx.Linear(12, 32, rngs=rngs)
        self.ln = nnx.LayerNorm(32, epsilon=epsilon, rngs=rngs)
        self.down = nnx.Linear(32, 10, dtype=dtype, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.after(self.down(self.ln(self.activation(self.up(x)))))


def exact_gelu(x: Any) -> Any:
    return jax.nn.gelu(x, approximate=False)


@right("mlp")
@right("mlp-bias-lacks", bias=False, notes=("down.bias",))
@wrong("mlp-gelu-tanh", between("fc1", "norm", "gelu-tanh"), activation=jax.nn.gelu)
@wrong("mlp-silu", between("fc1", "norm", "activation"), activation=jax.nn.silu)
@right("mlp-written-out", written_out=True, activation=jax.nn.gelu)
@wrong(
    "mlp-quick-gelu",
    between("fc1", "norm", "activation"),
    written_out=True,
    activation=lambda x: x * jax.nn.sigmoid(1.702 * x),
)
@wrong("mlp-epsilon", inside("norm", "epsilon"), epsilon=1e-6)
@wrong("mlp-softmax-added", between("fc2", "output", "added"), after=jax.nn.softmax)
@wrong("mlp-tanh-added", between("fc2", "output", "added"), after=jnp.tanh)
@wrong("mlp-bfloat16", inside("fc2", "low-precision"), dtype=jnp.bfloat16)
def perceptron(
    seed: int,
    *,
    activation: Callable[..., Any] = exact_gelu,
    epsilon: float = 1e-5,
    bias: bool = True,
    written_out: bool = False,
    dtype: Any = None,
    after: Callable[..., Any] = lambda x: x,
) -> Pair:
    flax = FlaxPerceptron(activation, epsilon, dtype, after, nnx.Rngs(seed))
    return Pair(torch=Perceptron(bias, written_out), jax=flax, inputs=(floats(seed, 3, 12),))


class LinenStack(linen.Module):
    slope: float = 0.2
    last: Callable[..., Any] = jax.nn.relu

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.leaky_relu(linen.Dense(20)(x), self.slope)
        x = self.last(linen.Dense(20)(x))
        return linen.Dense(20)(x)


@right("stack")
@wrong("stack-slope", between("0", "2", "negative-slope"), slope=0.01)
@wrong("stack-no-relu", between("2", "4", "activation"), last=lambda x: x)
def stack(seed: int, **options: Any) -> Pair:
    """Two square matrices of the same shape: only the order of their calls tells them apart."""
    hidden = nn.Linear(20, 20)
    net = nn.Sequential(nn.Linear(20, 20), nn.LeakyReLU(0.2), hidden, nn.ReLU(), nn.Linear(20, 20))
    x = floats(seed, 3, 20)
    linen_net = LinenStack(**options)
    return Pair(torch=net, jax=(linen_net, linen_net.init(jax.random.key(seed), x)), inputs=(x,))


class OwnNorm(nnx.Module):
    """A layer norm by hand, with each way to get it wrong."""

    def __init__(
        self, width: int, outside: bool, ddof: int, centred: bool, axis: int, rngs: nnx.Rngs
    ) -> None:
        self.gamma = nnx.Param(jnp.ones(width))
        self.beta = nnx.Param(jnp.zeros(width))
        self.outside, self.ddof, self.centred, self.axis = outside, ddof, centred, axis

    def __call__(self, x: Any) -> Any:
        if self.centred:
            centre = x - x.mean(self.axis, keepdims=True)
            variance = x.var(self.axis, ddof=self.ddof, keepdims=True)
        else:
            centre, variance = x, (x * x).mean(self.axis, keepdims=True)
        root = jnp.sqrt(variance) + 1e-5 if self.outside else jnp.sqrt(variance + 1e-5)
        return self.gamma[...] * centre / root + self.beta[...]


class ResidualPerceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(16)
        self.lin1 = nn.Linear(16, 24)
        self.lin2 = nn.Linear(24, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.lin2(self.lin1(self.ln(x)).tanh())
        return self.head(x)


class FlaxResidual(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, after_norm: bool, factor: float, **norm: Any) -> None:
        self.after_norm, self.factor = after_norm, factor
        self.norm = OwnNorm(16, rngs=rngs, **norm)
        self.mlp_in = nnx.Linear(16, 24, rngs=rngs)
        self.mlp_out = nnx.Linear(24, 16, rngs=rngs)
        self.classifier = nnx.Linear(16, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        y = self.norm(x)
        kept = y if self.after_norm else x
        x = kept + self.factor * self.mlp_out(jnp.tanh(self.mlp_in(y)))
        return self.classifier(x)


@right("own-norm")
@wrong("own-norm-epsilon-place", inside("ln", "epsilon-place"), outside=True)
@wrong("own-norm-unbiased", inside("ln", "variance-unbiased"), ddof=1)
@wrong("own-norm-not-centred", inside("ln", "norm-rms"), centred=False)
@wrong("own-norm-axis", inside("ln", "norm-axis"), axis=1)
@wrong("own-norm-residual", between("lin2", "head", "residual"), after_norm=True)
@wrong("own-norm-factor", between("lin2", "head", "scale"), factor=0.9)
def own_norm(
    seed: int,
    *,
    outside: bool = False,
    ddof: int = 0,
    centred: bool = True,
    axis: int = -1,
    after_norm: bool = False,
    factor: float = 1.0,
) -> Pair:
    norm = {"outside": outside, "ddof": ddof, "centred": centred, "axis": axis}
    flax = FlaxResidual(nnx.Rngs(seed), after_norm, factor, **norm)
    return Pair(torch=ResidualPerceptron(), jax=flax, inputs=(floats(seed, 2, 6, 16),))


class Scaled(nn.Module):
    """A layer scale, as small as the papers start it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(1e-6 * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x


class ScaledNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(14, 14)
        self.scale = Scaled(14)
        self.head = nn.Linear(14, 7)

    def forward(self, x: Tensor) -> dict[str, Any]:
        h = x + self.scale(F.softplus(self.proj(x)))
        return {"logits": self.head(h), "hidden": (h, h.mean(-1))}


def scaled_params(seed: int) -> dict[str, Any]:
    return {
        "gamma": 1e-6 * jnp.ones(14),
        "w": jnp.asarray(floats(seed, 14, 14)),
        "b": jnp.zeros(14),
        "head_w": jnp.asarray(floats(seed, 14, 7)),
        "head_b": jnp.zeros(7),
    }


@right("layer-scale")
@wrong("layer-scale-relu", between("proj", "scale", "activation"), softplus=jax.nn.relu)
def layer_scale(seed: int, *, softplus: Callable[..., Any] = jax.nn.softplus) -> Pair:
    """Its mistake is of size 1e-6 with the weights given; outputs are a dictionary."""

    def port(params: dict[str, Any], x: Any) -> dict[str, Any]:
        h = x + params["gamma"] * softplus(x @ params["w"] + params["b"])
        return {"logits": h @ params["head_w"] + params["head_b"], "hidden": (h, h.mean(-1))}

    x = floats(seed, 3, 14)
    return Pair(torch=ScaledNet(), jax=(port, scaled_params(seed)), inputs=(x,))


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(9, 9)
        self.out = nn.Linear(18, 4)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        both = self.shared(a).relu(), self.shared(b).relu()
        merged = torch.cat(both, -1)
        return self.out(F.dropout(merged, 0.1, self.training)), both[0]


class FlaxTwice(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.tower = nnx.Linear(9, 9, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.merge = nnx.Linear(18, 4, rngs=rngs)

    def __call__(self, a: Any, b: Any) -> Any:
        both = jax.nn.relu(self.tower(a)), jax.nn.relu(self.tower(b))
        return self.merge(self.drop(jnp.concatenate(both, -1))), both[0]


@right("called-twice")
def called_twice(seed: int) -> Pair:
    inputs = (floats(seed, 3, 9), floats(seed + 100, 3, 9))
    return Pair(torch=Twice(), jax=FlaxTwice(nnx.Rngs(seed)), inputs=inputs)


class WeightNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.utils.parametrizations.weight_norm(nn.Linear(7, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


class FlaxWeightNormed(nnx.Module):
    def __init__(self, epsilon: float, rngs: nnx.Rngs) -> None:
        self.fc = nnx.WeightNorm(nnx.Linear(7, 5, rngs=rngs), epsilon=epsilon, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.fc(x)


@right("weight-norm", epsilon=0.0)
@wrong("weight-norm-epsilon", inside("fc", "epsilon"), epsilon=1e-12)
def weight_norm(seed: int, *, epsilon: float) -> Pair:
    """Flax's scales are no variables, and its epsilon is 1e-12."""
    flax = FlaxWeightNormed(epsilon, nnx.Rngs(seed))
    return Pair(torch=WeightNormed(), jax=flax, inputs=(floats(seed, 3, 7),))
