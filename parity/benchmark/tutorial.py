"""The tutorial's own training loop, word for word: the arm `tutorial` of `parity bench`.

An image at a time goes from PIL through `ToTensor` and the DataLoader; each loss is fetched from
the device. Only weights and batch order come from outside, so that its losses can be checked.
"""

import importlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from parity.contract import backend
from parity.contract.data.datasets import Dataset, Split
from parity.contract.recipe import Recipe
from parity.contract.state import State
from torchcnn.data import torchvision_datasets


class SimpleCNN(nn.Module):
    """The tutorial's network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(16 * 13 * 13, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = x.view(x.size(0), -1)
        return self.fc1(x)


class _Training:
    """The tutorial's network, loss and optimiser, and what it does with a batch."""

    def __init__(self, recipe: Recipe, state: State) -> None:
        self.model = SimpleCNN()
        self.model.load_state_dict({name: torch.tensor(p) for name, p in state.params.items()})
        self._criterion = nn.CrossEntropyLoss()
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=recipe.lr)

    def step(self, images: Tensor, labels: Tensor) -> float:
        self._optimizer.zero_grad()
        loss = self._criterion(self.model(images), labels)
        loss.backward()
        self._optimizer.step()
        return loss.item()


class TutorialWorkload(backend.Workload):
    """The tutorial's training from a state's weights, with a recipe's batches and learning rate."""

    def __init__(self, recipe: Recipe, state: State, dataset: Dataset) -> None:
        self._recipe, self._images = recipe, _mnist(dataset.train)
        self._on_batch, self._on_data = (_Training(recipe, state) for _ in range(2))
        self._batch, self._epochs = next(iter(self._loader(1))), 0

    def forward(self, repeats: int) -> None:
        with torch.no_grad():
            for _ in range(repeats):
                self._on_batch.model(self._batch[0])

    def steps(self, repeats: int) -> np.ndarray:
        return np.array([self._on_batch.step(*self._batch) for _ in range(repeats)])

    def epoch(self) -> float:
        self._epochs += 1
        return sum(self._on_data.step(*batch) for batch in self._loader(self._epochs))

    def product(self, size: int, repeats: int) -> None:
        square = torch.ones(size, size)
        for _ in range(repeats):
            torch.mm(square, square)

    def programs(self) -> int:
        return 0

    def device_memory(self) -> int | None:
        return None

    def _loader(self, epoch: int) -> DataLoader:
        order = np.concatenate(list(self._recipe.batches(epoch, len(self._images)))).tolist()
        return DataLoader(self._images, batch_size=self._recipe.batch_size, sampler=order)


def _mnist(split: Split) -> Any:
    """Return torchvision's MNIST with these images in place of the files'."""
    library = torchvision_datasets().MNIST
    data = library.__new__(library)
    data.data = torch.from_numpy(split.images.copy())
    data.targets = torch.from_numpy(split.labels.copy())
    data.transform = importlib.import_module("torchvision.transforms").ToTensor()
    data.target_transform = None
    return data
