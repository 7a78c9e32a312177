"""Subjects: who computes a step, as the command line names them."""

import contextlib
import dataclasses
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np

from parity.contract.backend import Backend, Session, Trace, Workload
from parity.contract.data.datasets import Dataset, Split, pixels, read_dataset
from parity.contract.errors import RecipeError
from parity.contract.recipe import DType, Kernel, Mode, Recipe
from parity.contract.run.history import Evaluation, History
from parity.contract.run.observers import SILENT, Observer
from parity.contract.state import State
from parity.truth import reference

BACKENDS = {"torch": "torchcnn", "jax": "jaxcnn"}
"""Module of each backend; a further one is one more row."""

MODES: tuple[Mode, ...] = ("eager", "jit")
KERNELS: tuple[Kernel, ...] = ("layers", "fused")


@dataclass(frozen=True)
class Subject:
    """A backend in a mode, with a kernel, written BACKEND:MODE or BACKEND:MODE:KERNEL; or numpy.

    BACKEND:MODE has the kernel that goes layer by layer; numpy is the oracle.
    """

    backend_name: str
    mode: Mode = "eager"
    kernel: Kernel = "layers"

    @classmethod
    def parse(cls, text: str) -> "Subject":
        """Read a subject such as `torch:eager`, `jax:jit:fused` or `numpy`.

        Raises:
            RecipeError: there is no such backend, mode or kernel; says which there are.
        """
        known = {str(subject): subject for subject in (cls("numpy"), *cls.all())}
        subject = known.get(text.removesuffix(":layers") if text.count(":") == 2 else text)
        if subject is None:
            raise RecipeError(f"subject must be one of {', '.join(known)}, got {text!r}")
        return subject

    @classmethod
    def all(cls) -> "list[Subject]":
        """Return each backend in each mode with each kernel."""
        return [
            cls(backend, mode, kernel)
            for backend in BACKENDS
            for mode in MODES
            for kernel in KERNELS
        ]

    @property
    def backend(self) -> Backend | None:
        """The backend's module; None for the oracle."""
        module = BACKENDS.get(self.backend_name)
        return cast(Backend, importlib.import_module(module)) if module else None

    def resolve(self, recipe: Recipe) -> Recipe:
        """Return the recipe with device, mode and kernel as this subject uses them.

        Raises:
            DeviceError: the device, or the compiler that the mode needs, is not on this machine.
        """
        if self.backend is None:
            return dataclasses.replace(recipe, device="cpu", mode="eager", kernel="layers")
        return self.backend.resolve(self._own(recipe))

    def dtype(self, recipe: Recipe) -> DType:
        """The precision that it promises to compute in: the recipe's, the oracle's is float64."""
        return "float64" if self.backend is None else recipe.dtype

    def load_dataset(self, recipe: Recipe) -> Dataset:
        """Load the recipe's data set through the backend's library; in plain NumPy for the oracle.

        Raises:
            DataError: it is missing, damaged or not the published one.
        """
        load = read_dataset if self.backend is None else self.backend.load_dataset
        return load(recipe.dataset, recipe.data_dir)

    @contextlib.contextmanager
    def session(self, recipe: Recipe, state: State) -> Iterator[Session]:
        """Open a training at `state`."""
        if self.backend is None:
            yield OracleSession(recipe, state)
        else:
            with self.backend.session(self._own(recipe), state) as session:
                yield session

    def fit(self, recipe: Recipe, dataset: Dataset, *, observer: Observer = SILENT) -> History:
        """Train by the backend's own loop.

        Raises:
            RecipeError: the oracle has none.
        """
        if self.backend is None:
            raise RecipeError(f"{self} has no training loop")
        return self.backend.fit(self._own(recipe), dataset=dataset, observer=observer)

    def workload(
        self, recipe: Recipe, state: State, dataset: Dataset
    ) -> contextlib.AbstractContextManager[Workload]:
        """Open trainings from `state` on a data set and on its first batch, to be timed.

        Raises:
            RecipeError: the oracle is not made to be timed.
        """
        if self.backend is None:
            raise RecipeError(f"{self} is not made to be timed; name another subject")
        return self.backend.workload(self._own(recipe), state, dataset)

    def evaluate(self, recipe: Recipe, state: State, split: Split) -> Evaluation:
        """Evaluate a state on the images of a split."""
        if self.backend is None:
            return _oracle_evaluation(state, split)
        return self.backend.evaluate(self._own(recipe), state=state, split=split)

    def _own(self, recipe: Recipe) -> Recipe:
        return dataclasses.replace(recipe, mode=self.mode, kernel=self.kernel)

    def __str__(self) -> str:
        if self.backend_name not in BACKENDS:
            return self.backend_name
        kernel = f":{self.kernel}" * (self.kernel != "layers")
        return f"{self.backend_name}:{self.mode}{kernel}"


class OracleSession:
    """A training by `parity.truth.reference`, in float64 whatever the recipe says."""

    def __init__(self, recipe: Recipe, state: State) -> None:
        self._lr = recipe.lr
        self._state = state.astype("float64")

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Make one update; return the loss before it."""
        return float(self.trace(images, labels)["loss"])

    def steps(self, images: np.ndarray, labels: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Make an update on each batch of an order; return the losses."""
        return np.array([self.step(images[batch], labels[batch]) for batch in order])

    def trace(self, images: np.ndarray, labels: np.ndarray) -> Trace:
        """Make one update and return every stage of it."""
        trace = reference.trace(self._state, images, labels, lr=self._lr)
        self._state = after(trace, self._state.step + 1)
        return trace

    def export(self) -> State:
        """Return a copy of the present state."""
        return self._state.astype("float64")

    def load(self, state: State) -> None:
        """Go on from another state."""
        self._state = state.astype("float64")


def _oracle_evaluation(state: State, split: Split) -> Evaluation:
    p = state.astype("float64").params
    loss_sum, confusion = 0.0, np.zeros((10, 10), dtype=np.int64)
    for start in range(0, len(split), 500):
        labels = split.labels[start : start + 500]
        images = pixels(split.images[start : start + 500], "float64")
        maps = reference.relu(reference.conv1(images, p["conv1.weight"], p["conv1.bias"]))
        flat = reference.flatten(reference.pool(maps))
        logits = reference.fc1(flat, p["fc1.weight"], p["fc1.bias"])
        loss_sum += reference.loss(logits, labels) * len(labels)
        np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
    return Evaluation(loss=loss_sum / len(split), confusion=confusion)


def after(trace: Trace, step: int) -> State:
    """Return the state that a traced step ends in."""
    groups = {
        group: {
            name.removeprefix(f"{group}."): array
            for name, array in trace.items()
            if name.startswith(f"{group}.")
        }
        for group in ("params", "adam.m", "adam.v")
    }
    return State(
        params=groups["params"], adam_m=groups["adam.m"], adam_v=groups["adam.v"], step=step
    )
