"""The same network with convolution, ReLU and pooling folded into one matrix product.

Each output of the pool comes from a window of 4×4 pixels; the windows are 2 pixels apart. The 3×3
kernel fits into a window at four places. Padded with zeros at each of them, it is a matrix of 16·4
rows; times the windows, one a column, it gives the four candidates that the pool selects from.

Shapes: B batch, innermost, so that neither windows nor flattening are transposed; P positions of
the pool times B; products (16, 4, P), the four in the order of the pool's window.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torchcnn.model import CNN, Activations


class FusedCNN(CNN):
    """`CNN`, computed another way: same parameters, same function, first-wins ties included."""

    def stages(self, images: Float[Tensor, "B 1 28 28"]) -> Activations:
        """Return the output of every layer, in order; nothing here is made from conv1 and relu."""
        products = self._products(images)
        pool = self._pool(products)
        conv1 = _unfold(products + self._bias[:, None, None], len(images))
        flatten = pool.t()  # (B, 2704), in the order C, H, W
        return Activations(
            conv1=conv1,
            relu=F.relu(conv1),
            pool=flatten.reshape(-1, 16, 13, 13),
            flatten=flatten,
            logits=self._logits(pool),
        )

    def forward(self, images: Float[Tensor, "B 1 28 28"]) -> Float[Tensor, "B 10"]:
        """Return the logits."""
        return self._logits(self._pool(self._products(images)))

    def _products(self, images: Float[Tensor, "B 1 28 28"]) -> Float[Tensor, "16 4 P"]:
        """Return the convolution before its bias, the four places of each window together."""
        pixels = images[:, 0].permute(1, 2, 0).contiguous()  # (28, 28, B)
        return (_fold(self.conv1.weight) @ _windows(pixels)).view(16, 4, -1)

    def _pool(self, products: Float[Tensor, "16 4 P"]) -> Float[Tensor, "2704 B"]:
        """Return what is left after bias, ReLU and pooling, in the order C, H, W."""
        return relu_pool(products, self._bias).view(2704, -1)

    @property
    def _bias(self) -> Float[Tensor, "16"]:
        return cast(Tensor, self.conv1.bias)  # None is for layers without one

    def _logits(self, flatten: Float[Tensor, "2704 B"]) -> Float[Tensor, "B 10"]:
        return torch.addmm(self.fc1.bias[:, None], self.fc1.weight, flatten).t()


def relu_pool(
    products: Float[Tensor, "16 4 P"], bias: Float[Tensor, "16"]
) -> Float[Tensor, "16 P"]:
    """Return the largest of four candidates, or zero; of equal ones the first gets the gradient."""
    return _ReLUPool.apply(products, bias)


class _ReLUPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, products: Tensor, bias: Tensor) -> Tensor:
        candidates = products + bias[:, None, None]
        first, second, third, fourth = candidates.unbind(dim=1)
        upper, lower = torch.maximum(first, second), torch.maximum(third, fourth)
        pool = F.relu(torch.maximum(upper, lower))
        ctx.save_for_backward(candidates, pool)
        return pool

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Route the gradient by factors of 1 and 0: `torch.where` is slow op by op."""
        candidates, pool = ctx.saved_tensors
        first, second, third, fourth = candidates.unbind(dim=1)
        upper, lower = torch.maximum(first, second), torch.maximum(third, fourth)
        gradient = gradients[0] * pool.sign()
        to_upper = gradient * _at_least(upper, lower)
        to_lower = gradient - to_upper
        to_first = to_upper * _at_least(first, second)
        to_third = to_lower * _at_least(third, fourth)
        to_products = [to_first, to_upper - to_first, to_third, to_lower - to_third]
        return torch.stack(to_products, dim=1), gradient.sum(dim=1)


def _at_least(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 where a ≥ b, else 0, in their dtype."""
    return torch.ge(a, b, out=torch.empty_like(a))


def _fold(weight: Float[Tensor, "16 1 3 3"]) -> Float[Tensor, "64 16"]:
    """Return the kernel in each of its four places in a window, one a row."""
    filters = weight[:, 0]  # (16, 3, 3)
    places = [F.pad(filters, (j, 1 - j, i, 1 - i)) for i in (0, 1) for j in (0, 1)]
    return torch.stack(places, dim=1).reshape(64, 16)


def _windows(pixels: Float[Tensor, "28 28 B"]) -> Float[Tensor, "16 P"]:
    """Return the 4×4 pixels behind each output of the pool, one a column."""
    return pixels.unfold(0, 4, 2).unfold(1, 4, 2).permute(3, 4, 0, 1, 2).reshape(16, -1)


def _unfold(candidates: Float[Tensor, "16 4 P"], batch: int) -> Float[Tensor, "B 16 26 26"]:
    """Return the candidates of the pool as the convolution that they are."""
    places = candidates.view(16, 2, 2, 13, 13, batch)  # C, row and column in the window, H, W, B
    return places.permute(5, 0, 3, 1, 4, 2).reshape(batch, 16, 26, 26)
