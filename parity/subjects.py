"""Subjects: who computes a step, as the command line names them."""

import importlib
from dataclasses import dataclass
from typing import cast

from parity.contract.backend import Backend
from parity.contract.errors import RecipeError

BACKENDS = {"torch": "torchcnn", "jax": "jaxcnn"}
"""Module of each backend; a further one is one more row."""

MODES = ("eager", "jit")


@dataclass(frozen=True)
class Subject:
    """A backend in one of its modes, written BACKEND:MODE."""

    backend_name: str
    mode: str

    @classmethod
    def parse(cls, text: str) -> "Subject":
        """Read a subject such as `torch:eager` or `jax:jit`.

        Raises:
            RecipeError: there is no such backend or mode; says which there are.
        """
        backend, _, mode = text.partition(":")
        if backend not in BACKENDS or mode not in MODES:
            known = ", ".join(f"{backend}:{mode}" for backend in BACKENDS for mode in MODES)
            raise RecipeError(f"subject must be one of {known}, got {text!r}")
        return cls(backend, mode)

    def load_backend(self) -> Backend:
        """Import the backend's module."""
        return cast(Backend, importlib.import_module(BACKENDS[self.backend_name]))

    def __str__(self) -> str:
        return f"{self.backend_name}:{self.mode}"
