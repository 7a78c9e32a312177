"""The same network with convolution, ReLU and pooling folded into one matrix product.

Each output of the pool comes from a window of 4×4 pixels; the windows are 2 pixels apart. The 3×3
kernel fits into a window at four places. Padded with zeros at each of them, it is a matrix of 16·4
rows; times the windows, one a column, it gives the four candidates that the pool selects from.

Shapes: B batch, innermost, so that neither windows nor flattening are transposed; P positions of
the pool times B; products (16, 4, P), the four in the order of the pool's window.
"""

from typing import cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from jaxcnn.model import CNN, Activations

_TILES = (slice(0, 6), slice(6, 13))
"""Rows of the pool, in tiles that do not depend on each other: XLA computes them side by side."""


class FusedCNN(CNN):
    """`CNN`, computed another way: same parameters, same function, first-wins ties included."""

    def stages(self, images: Float[Array, "B 28 28 1"]) -> Activations:
        """Return the output of every layer, in order; nothing here is made from conv1 and relu."""
        tiles = self._products(images)
        pool = self._pool(tiles)
        bias = _value(self.conv1.bias)[:, None, None]
        conv1 = jnp.concatenate([_unfold(tile + bias, len(images)) for tile in tiles], axis=1)
        flatten = pool.reshape(16, 169, -1).transpose(2, 1, 0)  # (B, 169, 16)
        return Activations(
            conv1=conv1,
            relu=jax.nn.relu(conv1),
            pool=flatten.reshape(-1, 13, 13, 16),
            flatten=flatten.reshape(-1, 2704),
            logits=self._logits(pool),
        )

    def __call__(self, images: Float[Array, "B 28 28 1"]) -> Float[Array, "B 10"]:
        """Return the logits."""
        return self._logits(self._pool(self._products(images)))

    def _products(self, images: Float[Array, "B 28 28 1"]) -> list[Float[Array, "16 4 _"]]:
        """Return the convolution before its bias, the four places of each window together."""
        pixels = images[..., 0].transpose(1, 2, 0)  # (28, 28, B)
        kernel = _fold(_value(self.conv1.kernel))
        return [(kernel @ _windows(pixels, rows)).reshape(16, 4, -1) for rows in _TILES]

    def _pool(self, tiles: list[Float[Array, "16 4 _"]]) -> Float[Array, "2704 B"]:
        """Return what is left after bias, ReLU and pooling, in the order C, H, W."""
        bias = _value(self.conv1.bias)
        pools = [
            relu_pool(tile, bias).reshape(16, rows.stop - rows.start, 13, -1)
            for tile, rows in zip(tiles, _TILES, strict=True)
        ]
        return jnp.concatenate(pools, axis=1).reshape(2704, -1)

    def _logits(self, flatten: Float[Array, "2704 B"]) -> Float[Array, "B 10"]:
        weight = _value(self.fc1.kernel).reshape(169, 16, 10).transpose(1, 0, 2).reshape(2704, 10)
        return _linear(flatten, weight) + _value(self.fc1.bias)


def _value(parameter: nnx.Param | None) -> Array:
    return cast(nnx.Param, parameter)[...]  # None is for layers without a bias


@jax.custom_vjp
def relu_pool(products: Float[Array, "16 4 P"], bias: Float[Array, "16"]) -> Float[Array, "16 P"]:
    """Return the largest of four candidates, or zero; of equal ones the first gets the gradient."""
    return _relu_pool_forward(products, bias)[0]


def _relu_pool_forward(products: Array, bias: Array) -> tuple[Array, Array]:
    """Return the pool, and which candidate it is: 0 to 3, or 4 where it is zero."""
    first, second, third, fourth = (products + bias[:, None, None]).transpose(1, 0, 2)
    left, right = first >= second, third >= fourth
    upper, lower = jnp.where(left, first, second), jnp.where(right, third, fourth)
    top = upper >= lower
    largest = jnp.where(top, upper, lower)
    winner = jnp.where(top, jnp.where(left, 0, 1), jnp.where(right, 2, 3))
    return jax.nn.relu(largest), jnp.where(largest > 0, winner, 4).astype(jnp.int8)


def _relu_pool_backward(winner: Array, gradient: Array) -> tuple[Array, Array]:
    places = jnp.arange(4, dtype=jnp.int8)[:, None]
    to_products = jnp.where(winner[:, None] == places, gradient[:, None], 0)
    return to_products, jnp.where(winner < 4, gradient, 0).sum(axis=1)


relu_pool.defvjp(_relu_pool_forward, _relu_pool_backward)


def _fold(kernel: Float[Array, "3 3 1 16"]) -> Float[Array, "64 16"]:
    """Return the kernel in each of its four places in a window, one a row."""
    filters = kernel[:, :, 0].transpose(2, 0, 1)  # (16, 3, 3)
    places = [jnp.pad(filters, ((0, 0), (i, 1 - i), (j, 1 - j))) for i in (0, 1) for j in (0, 1)]
    return jnp.stack(places, axis=1).reshape(64, 16)


def _windows(pixels: Float[Array, "28 28 B"], rows: slice) -> Float[Array, "16 P"]:
    """Return the 4×4 pixels behind each output of some rows of the pool, one a column."""
    top, end = 2 * rows.start, 2 * rows.stop - 1
    slices = [pixels[top + i : end + i : 2, j : j + 25 : 2] for i in range(4) for j in range(4)]
    return jnp.stack(slices).reshape(16, -1)


def _unfold(tile: Float[Array, "16 4 P"], batch: int) -> Float[Array, "B rows 26 16"]:
    """Return the candidates of some rows of the pool as the convolution's two rows for each."""
    places = tile.reshape(16, 2, 2, -1, 13, batch)  # C, row and column in the window, H, W, B
    return places.transpose(5, 3, 1, 4, 2, 0).reshape(batch, -1, 26, 16)


@jax.custom_vjp
def _linear(flatten: Float[Array, "2704 B"], weight: Float[Array, "2704 10"]) -> Array:
    """Return logits before their bias; its own gradients are products that XLA has kernels for."""
    return (weight.T @ flatten).T


def _linear_forward(flatten: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return _linear(flatten, weight), (flatten, weight)


def _linear_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    flatten, weight = saved
    return weight @ gradient.T, flatten @ gradient


_linear.defvjp(_linear_forward, _linear_backward)
