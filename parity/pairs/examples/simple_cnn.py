"""The tutorial's network in PyTorch and in Flax NNX, as anybody would write them."""

import numpy as np
import optax
import torch
from flax import nnx
from torch import nn

from parity import Pair


class SimpleCNN(nn.Module):
    """As the tutorial has it."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(16 * 13 * 13, 10)

    def forward(self, x):
        x = self.pool(torch.relu(self.conv1(x)))
        x = x.view(x.size(0), -1)
        return self.fc1(x)


class FlaxCNN(nnx.Module):
    """As a user of Flax would write it, for images in NHWC."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 16, kernel_size=(3, 3), padding="VALID", rngs=rngs)
        self.fc1 = nnx.Linear(13 * 13 * 16, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), strides=(2, 2))
        return self.fc1(x.reshape(len(x), -1))


def _cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def pair():
    """Return both, with a batch, the loss and the optimiser."""
    rng = np.random.default_rng(0)
    return Pair(
        torch=SimpleCNN(),
        jax=FlaxCNN(nnx.Rngs(0)),
        inputs=(rng.random((8, 1, 28, 28), np.float32),),
        call_jax=lambda net, x: net(x.transpose(0, 2, 3, 1)),
        loss=(nn.CrossEntropyLoss(), _cross_entropy),
        targets=(rng.integers(0, 10, 8),),
        optimizer=(lambda params: torch.optim.Adam(params, lr=1e-3), optax.adam(1e-3)),
    )
