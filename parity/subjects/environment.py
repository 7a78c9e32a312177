"""What a result was computed with and from: the machine, each framework as set, the inputs."""

import os
import platform
import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np

from parity.contract.cli.tables import aligned
from parity.contract.data.datasets import Dataset, sha256_of
from parity.contract.recipe import DType, Recipe
from parity.contract.state import State
from parity.contract.version import provenance
from parity.subjects.subject import Subject

_KNOWN = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def environment(subjects: Iterable[Subject], recipe: Recipe) -> dict[str, Any]:
    """Return the machine, and an entry for each backend that one of the subjects computes with.

    Of a backend these are the flags that are on during a step of the recipe, and the environment
    variables that are set and change what it computes; all JSON values. It raises DeviceError.
    """
    processor = _field("/proc/cpuinfo", "model name") or platform.processor()
    facts = {
        **provenance(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor or platform.machine(),
        "cores": os.cpu_count() or 0,
        "cores usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "NVIDIA driver": _field("/proc/driver/nvidia/version", "NVRM version"),
        "numpy": np.__version__,
        "cnn-parity": next((d.version for d in distributions(name="cnn-parity")), "not installed"),
    }
    for name, backend in {s.backend_name: s.backend for s in subjects}.items():
        variables = _KNOWN["variables"].get(name, ())
        if values := backend.environment(recipe):
            facts[name] = values | {key: os.environ[key] for key in variables if key in os.environ}
    return {name: value for name, value in facts.items() if value is not None}


def inputs(dataset: Dataset, state: State, order: Iterable[np.ndarray]) -> dict[str, str]:
    """Return the SHA-256 of data set, first state, and the indices of each batch."""
    arrays = [*state.params.values(), *state.adam_m.values(), *state.adam_v.values()]
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
            rows += [(f"{name}:", ""), *((f"  {k}", _shown(item)) for k, item in value.items())]
        else:
            rows.append((name, _shown(value)))
    return aligned(rows, left=2)


def remarks(facts: dict[str, Any], dtype: DType) -> list[str]:
    """Return a line for every flag that is not as it should be, and every build in bad repute."""
    lines = []
    promised = _KNOWN["promised"] | {"64-bit types": dtype == "float64"}
    for backend, values in ((k, v) for k, v in facts.items() if isinstance(v, dict)):
        lines += [
            f"{backend}: {flag} is {_shown(values[flag])}, should be {_shown(value)}:"
            " something overrides what the backend sets, or this version no longer heeds it"
            for flag, value in promised.items()
            if values.get(flag, value) != value
        ]
        lines += [
            f"{package} {values[package]}: {report['said']}"
            for package, report in _KNOWN["reported"].items()
            if re.match(report["versions"], str(values.get(package)))
        ]
    return lines


def _shown(value: str | int | bool) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _field(file: str, key: str) -> str | None:
    """Return what follows the first `KEY:` in a file of such lines; None without any."""
    path = Path(file)
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    found = re.search(rf"^{key}\s*:(.*)", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else None
