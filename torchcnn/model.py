"""The network: Conv2d(1→16, 3×3) → ReLU → MaxPool 2×2 → flatten → Linear(2704→10).

Shapes: B batch, C channels, H height, W width; PyTorch's images are (B, C, H, W).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from parity.contract.backend import Layer


class Activations(NamedTuple):
    """The output of every layer, in order."""

    conv1: Float[Tensor, "B 16 26 26"]
    relu: Float[Tensor, "B 16 26 26"]
    pool: Float[Tensor, "B 16 13 13"]
    flatten: Float[Tensor, "B 2704"]
    logits: Float[Tensor, "B 10"]


class CNN(nn.Module):
    """27,210 parameters: 144 + 16 in conv1, 27,040 + 10 in fc1, drawn from U(±1/√fan_in)."""

    def __init__(self, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, padding=0, dtype=dtype)
        self.fc1 = nn.Linear(16 * 13 * 13, 10, dtype=dtype)

    def stages(self, images: Float[Tensor, "B 1 28 28"]) -> Activations:
        """Return the output of every layer, in order."""
        conv1 = self.conv1(images)  # (B, 16, 26, 26)
        relu = F.relu(conv1)
        pool = F.max_pool2d(relu, kernel_size=2, stride=2)  # (B, 16, 13, 13)
        flatten = pool.flatten(start_dim=1)  # (B, 2704), in the order C, H, W
        logits = self.fc1(flatten)  # (B, 10)
        return Activations(conv1, relu, pool, flatten, logits)

    def forward(self, images: Float[Tensor, "B 1 28 28"]) -> Float[Tensor, "B 10"]:
        """Return the logits."""
        return self.stages(images).logits


def summary() -> list[Layer]:
    """Describe each layer: its output shape and the sizes of its weight and bias."""
    with torch.device("meta"):
        model = CNN()
        outputs = model.stages(torch.zeros(1, 1, 28, 28))
    names = ("conv1", "relu", "pool", "flatten", "fc1")
    sizes = {k: tuple(p.numel() for p in v.parameters()) for k, v in model.named_children()}
    return [
        Layer(name, tuple(output.shape[1:]), sizes.get(name, ()))
        for name, output in zip(names, outputs, strict=True)
    ]
