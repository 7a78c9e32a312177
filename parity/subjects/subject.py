"""Subjects: who computes a step, as the command line names them."""

import dataclasses
import difflib
import importlib
import itertools
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from parity.contract.backend import Session, Stepper, Workload
from parity.contract.data.datasets import Dataset, Split
from parity.contract.errors import DeviceError, RecipeError, missing_package
from parity.contract.recipe import Kernel, Mode, Recipe
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.run.history import Evaluation, History
from parity.contract.run.observers import SILENT, Observer
from parity.contract.state import State
from parity.subjects.workers import Workers, workers

BACKENDS = {"numpy": "parity.subjects.oracle", "torch": "torchcnn", "jax": "jaxcnn"}
"""Module of each backend; a further one is one more row."""

ORACLE = "numpy"
"""The one backend without modes and kernels."""

MOST = 64
"""Processes of a subject, on one machine."""

MODES: tuple[Mode, ...] = ("eager", "jit")
KERNELS: tuple[Kernel, ...] = ("layers", "fused")


def unknown(what: str, text: str, known: Iterable[str]) -> RecipeError:
    """Return the error for a name that is none of those known, with the one that may be meant."""
    names = list(known)
    near = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]}?" if near else ""
    return RecipeError(f"{what} must be one of {', '.join(names)}, got {text!r}{meant}")


@dataclass(frozen=True)
class Subject:
    """A backend in a mode, with a kernel, written BACKEND:MODE or BACKEND:MODE:KERNEL; or numpy.

    With @N after it, N processes of this machine compute it together.
    BACKEND:MODE has the kernel that goes layer by layer; numpy is the oracle. The methods named as
    functions of `Backend` call them, with the subject's mode and kernel in the recipe; they raise
    RecipeError where the backend lacks one that not every backend needs.
    """

    backend_name: str
    mode: Mode = "eager"
    kernel: Kernel = "layers"
    processes: int = 1

    @classmethod
    def parse(cls, text: str) -> "Subject":
        """Read a subject such as `torch:eager`; raise RecipeError, which names all, for others."""
        if not isinstance(text, str):
            hint = "a subject is a name such as torch:eager; for models give parity.prove a Pair"
            raise RecipeError(f"{hint}, got {type(text).__name__}")
        known = {str(subject): subject for subject in (cls(ORACLE), *cls.all())}
        name, at, count = text.partition("@")
        subject = known.get(name.removesuffix(":layers") if name.count(":") == 2 else name)
        if subject is None:
            raise unknown("subject", text, known)
        if not at:
            return subject
        if not count.isdecimal() or not 0 < int(count) <= MOST or subject.backend_name == ORACLE:
            raise RecipeError(
                f"subject {text!r}: after @ comes the number of processes, 1 to {MOST}, of a"
                " subject that is not numpy"
            )
        return dataclasses.replace(subject, processes=int(count))

    @classmethod
    def all(cls) -> "list[Subject]":
        """Return each backend but the oracle, in each mode with each kernel."""
        backends = [name for name in BACKENDS if name != ORACLE]
        return [cls(*parts) for parts in itertools.product(backends, MODES, KERNELS)]

    @property
    def backend(self) -> Stepper:
        """The backend's module; DeviceError where it, or its framework, cannot be imported."""
        try:
            module = importlib.import_module(BACKENDS[self.backend_name])
            module.resolve  # noqa: B018 - only now it imports its framework
        except ImportError as error:
            raise DeviceError(missing_package(error)) from error
        return cast(Stepper, module)

    def can(self, *names: str) -> bool:
        """Return whether the backend has functions such as `fit`, which not every one needs."""
        return all(hasattr(self.backend, name) for name in names)

    def resolve(self, recipe: Recipe) -> Recipe:
        resolved = self.backend.resolve(self._own(recipe))
        if self.processes > 1 and (self.backend_name, resolved.mode) == ("jax", "eager"):
            raise RecipeError(f"{self}: JAX divides a batch among processes under jit only")
        if resolved.batch_size < self.processes:
            raise RecipeError(
                f"{self}: batch_size {resolved.batch_size} is less than an image a process"
            )
        return resolved

    def load_dataset(self, recipe: Recipe) -> Dataset:
        return self.backend.load_dataset(recipe.dataset, recipe.data_dir)

    def session(self, recipe: Recipe, state: State) -> AbstractContextManager[Session]:
        if self.processes > 1:
            return self._workers().session(self._own(recipe), state)
        return self.backend.session(self._own(recipe), state)

    def fit(
        self,
        recipe: Recipe,
        dataset: Dataset,
        *,
        start: Checkpoint | None = None,
        observer: Observer = SILENT,
    ) -> History:
        return self._call("fit", recipe, dataset=dataset, start=start, observer=observer)

    def workload(
        self, recipe: Recipe, state: State, dataset: Dataset
    ) -> AbstractContextManager[Workload]:
        return self._call("workload", recipe, state, dataset)

    def evaluate(self, recipe: Recipe, state: State, split: Split) -> Evaluation:
        return self._call("evaluate", recipe, state=state, split=split)

    def predict(self, recipe: Recipe, state: State, images: np.ndarray) -> np.ndarray:
        return self._call("predict", recipe, state=state, images=images)

    def _call(self, name: str, recipe: Recipe, *args: object, **kwargs: object) -> Any:
        if not self.can(name):
            lacking = f"{self.backend.__name__} lacks `{name}`"
            raise RecipeError(f"{self}: {lacking}; name another subject")
        where = self._workers() if self.processes > 1 else self.backend
        return getattr(where, name)(self._own(recipe), *args, **kwargs)

    def _workers(self) -> Workers:
        return workers(BACKENDS[self.backend_name], self.processes)

    def _own(self, recipe: Recipe) -> Recipe:
        return dataclasses.replace(recipe, mode=self.mode, kernel=self.kernel)

    def __str__(self) -> str:
        if self.backend_name == ORACLE:
            return ORACLE
        kernel = f":{self.kernel}" * (self.kernel != "layers")
        processes = f"@{self.processes}" * (self.processes > 1)
        return f"{self.backend_name}:{self.mode}{kernel}{processes}"
