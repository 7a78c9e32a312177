"""The network: Conv(1→16, 3×3) → ReLU → max-pool 2×2 → flatten → Linear(2704→10).

Shapes: B batch, C channels, H height, W width; Flax's images are (B, H, W, C).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from parity.contract.backend import Layer


class Activations(NamedTuple):
    """The output of every layer, in order."""

    conv1: Float[Array, "B 26 26 16"]
    relu: Float[Array, "B 26 26 16"]
    pool: Float[Array, "B 13 13 16"]
    flatten: Float[Array, "B 2704"]
    logits: Float[Array, "B 10"]


class CNN(nnx.Module):
    """27,210 parameters: 144 + 16 in conv1, 27,040 + 10 in fc1, drawn from U(±1/√fan_in)."""

    def __init__(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        common = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.conv1 = nnx.Conv(1, 16, (3, 3), padding="VALID", **_uniform(fan_in=9), **common)
        self.fc1 = nnx.Linear(13 * 13 * 16, 10, **_uniform(fan_in=2704), **common)

    def stages(self, images: Float[Array, "B 28 28 1"]) -> Activations:
        """Return the output of every layer, in order."""
        conv1 = self.conv1(images)  # (B, 26, 26, 16)
        relu = nnx.relu(conv1)
        pool = nnx.max_pool(relu, (2, 2), strides=(2, 2), padding="VALID")  # (B, 13, 13, 16)
        flatten = pool.reshape(pool.shape[0], -1)  # (B, 2704), in the order H, W, C
        logits = self.fc1(flatten)  # (B, 10)
        return Activations(conv1, relu, pool, flatten, logits)

    def __call__(self, images: Float[Array, "B 28 28 1"]) -> Float[Array, "B 10"]:
        """Return the logits."""
        return self.stages(images).logits


def _uniform(*, fan_in: int) -> dict[str, Any]:
    """Return U(±1/√fan_in), from which PyTorch's layers draw weights and biases by default."""
    bound = fan_in**-0.5
    draw = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
    return {"kernel_init": draw, "bias_init": draw}


def summary() -> list[Layer]:
    """Describe each layer: its output shape and the sizes of its weight and bias."""
    model = nnx.eval_shape(lambda: CNN(rngs=nnx.Rngs(0)))
    images = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    outputs = nnx.eval_shape(lambda m, x: m.stages(x), model, images)
    names = ("conv1", "relu", "pool", "flatten", "fc1")
    layers = {"conv1": model.conv1, "fc1": model.fc1}
    sizes = {k: tuple(p.size for p in (v.kernel, v.bias)) for k, v in layers.items()}
    return [
        Layer(name, tuple(output.shape[1:]), sizes.get(name, ()))
        for name, output in zip(names, outputs, strict=True)
    ]
