"""What a result was computed with and from: the machine, each framework as set, the inputs."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from parity.contract.cli.tables import aligned
from parity.contract.data.datasets import Dataset
from parity.contract.files.digests import sha256_of
from parity.contract.recipe import DType, Recipe
from parity.contract.state import State
from parity.subjects.subject import Subject


def environment(subjects: Iterable[Subject], recipe: Recipe) -> dict[str, Any]:
    """Return the machine, and an entry for each backend that one of the subjects computes with.

    The values are JSON's. A backend's flags are those that are on during a step of the recipe.

    Raises:
        DeviceError: a backend does not have the recipe's device.
    """
    backends = {subject.backend_name: subject.backend for subject in subjects}
    facts = {name: backend.environment(recipe) for name, backend in backends.items()}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        **_usable_cores(),
        **_nvidia_driver(),
        "numpy": np.__version__,
        "cnn-parity": _own_version(),
        **{name: values for name, values in facts.items() if values},
    }


def inputs(dataset: Dataset, state: State, order: Iterable[np.ndarray]) -> dict[str, str]:
    """Return the SHA-256 of what is computed from: equal on two machines if the inputs are.

    Args:
        dataset: images and labels.
        state: where the first step starts.
        order: indices of each batch.
    """
    arrays = (
        array for group in (state.params, state.adam_m, state.adam_v) for array in group.values()
    )
    return {
        "data set": dataset.sha256,
        "initial state": sha256_of([*arrays, np.asarray(state.step)]),
        "batches": sha256_of(order),
    }


def environment_lines(facts: dict[str, Any]) -> list[str]:
    """Return the machine's facts, then each backend's, as an aligned table."""
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows.append((f"{name}:", ""))
            rows += [(f"  {key}", _shown(item)) for key, item in value.items()]
        else:
            rows.append((name, _shown(value)))
    return aligned(rows, left=2)


def remarks(facts: dict[str, Any], dtype: DType) -> list[str]:
    """Return a line for every flag that is not as it should be, and every build in bad repute."""
    lines = []
    for backend, values in facts.items():
        if not isinstance(values, dict):
            continue
        promised = _PROMISED | {"64-bit types": dtype == "float64"}
        lines += [
            f"{backend}: {flag} is {_shown(values[flag])}, should be {_shown(value)}:"
            " something overrides what the backend sets, or this version no longer heeds it"
            for flag, value in promised.items()
            if values.get(flag, value) != value
        ]
        lines += [
            f"{package} {values[package]}: {reported}"
            for package, (is_bad, reported) in _REPORTED.items()
            if package in values and is_bad(str(values[package]))
        ]
    return lines


def _release(version: str) -> tuple[int, ...]:
    """Return major, minor and patch of a version such as 2.13.0+cpu."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


_PROMISED: dict[str, str | bool] = {
    "float32 matmul precision": "highest",
    "TF32 in matrix products": False,
    "TF32 in cuDNN": False,
    "cuDNN deterministic": True,
    "cuDNN benchmark": False,
}
"""Flags of which every backend that has them promises a value inside a step."""

_REPORTED: dict[str, tuple[Callable[[str], bool], str]] = {
    "jaxlib": (
        lambda version: _release(version) == (0, 10, 2),
        "wrong jitted results and crashes are reported of some fusions; what is said here is said"
        " of this step only",
    ),
}
"""Known bad builds: which versions of a package, and what is said of them."""


def _shown(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _processor() -> str:
    named = _field(Path("/proc/cpuinfo"), "model name")
    return named or platform.processor() or platform.machine()


def _usable_cores() -> dict[str, int]:
    """Return how many cores this process may use, where the system says so."""
    return (
        {"cores usable": len(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else {}
    )


def _nvidia_driver() -> dict[str, str]:
    """Return the version of the kernel's NVIDIA driver, where there is one."""
    version = _field(Path("/proc/driver/nvidia/version"), "NVRM version")
    return {"NVIDIA driver": version} if version else {}


def _field(file: Path, key: str) -> str | None:
    """Return what stands behind the first `KEY:` of a file of such lines; None without any."""
    if not file.is_file():
        return None
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return " ".join(value.split())
    return None


def _own_version() -> str:
    try:
        return importlib.metadata.version("cnn-parity")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
