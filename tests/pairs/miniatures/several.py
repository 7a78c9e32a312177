"""Two and three mistakes at once, independent of each other."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from parity.pairs.pair import Pair
from tests.pairs.miniatures import attention, convolutional, images, mlp
from tests.pairs.miniatures.registry import between, inside, wrong


@wrong(
    "two-in-mlp",
    between("fc1", "norm", "gelu-tanh"),
    inside("norm", "epsilon"),
    build=mlp.perceptron,
    activation=jax.nn.gelu,
    epsilon=1e-6,
)
@wrong(
    "three-in-mlp",
    between("fc1", "norm", "activation"),
    inside("norm", "epsilon"),
    inside("fc2", "low-precision"),
    build=mlp.perceptron,
    activation=jax.nn.silu,
    epsilon=1e-6,
    dtype=jnp.bfloat16,
)
@wrong(
    "two-in-cnn",
    inside("bn1", "epsilon"),
    inside("conv2", "padding"),
    build=convolutional.cnn,
    epsilon=1e-3,
    padding="SAME",
)
@wrong(
    "three-in-resnet",
    inside("stem", "padding"),
    between("bn", "layer1.conv1", "pool-padding"),
    between("layer1.downsample.1", "fc", "order"),
    build=convolutional.resnet,
    stem="SAME",
    pool="SAME",
    relu_first=True,
)
@wrong(
    "two-in-gpt",
    between("h.0.v_proj", "h.0.o_proj", "rope-base"),
    inside("h.0.ln2", "epsilon"),
    build=attention.gpt,
    base=500000.0,
    epsilon=1e-5,
)
@wrong(
    "two-in-unet",
    inside("inorm", "epsilon"),
    between("act", "up", "resize-align-corners"),
    build=images.unet,
    epsilon=1e-6,
    align=True,
)
def several(seed: int, *, build: Callable[..., Pair], **options: object) -> Pair:
    return build(seed, **options)
