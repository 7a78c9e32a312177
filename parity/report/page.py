"""A verdict and its evidence as one HTML page that needs nothing else: no network, no script.

The text is in the templates, one for each kind of result; this module gives them their values.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity.benchmark.result import Benchmark
from parity.contract.errors import OutputError
from parity.contract.files import json_text, require_page, write_file
from parity.contract.run.history import TUTORIAL
from parity.contract.run.report import templates
from parity.judge.check import LOOP_STAGES, Verdict
from parity.judge.compare import Comparison
from parity.judge.trajectory import FREE_RUN_LIMIT, Trajectory
from parity.pairs.proof import Proof
from parity.report import network, plots
from parity.subjects.environment import environment_lines
from parity.truth.propagation import STEP_STAGES

EVIDENCE: Mapping[str, Callable[[Comparison], str]] = {
    "error / bound": lambda c: "exact" if c.agrees and c.error == 0 else f"{c.ratio:.3g}",
    "error": lambda c: f"{c.error:.3g}",
    "bound": lambda c: f"{c.bound:.3g}",
    "place": lambda c: ", ".join(map(str, c.index)) or "–",
    "got": lambda c: f"{c.got:.9g}",
    "expected": lambda c: f"{c.expected:.9g}",
    "elements outside": lambda c: f"{c.outside:,} of {c.elements:,}",
}
"""What is shown of a comparison, by column."""

GLOSSARY: Mapping[str, str] = {
    "data": "the images and labels that a subject reads",
    "init": "the parameters that a seed begins with",
    "conv1": "what the convolution makes of a batch, bias added",
    "relu": "that, with what is below zero set to zero",
    "pool": "the largest number of each window of 2 × 2",
    "flatten": "an image's 2,704 numbers in a row, channel by channel",
    "logits": "the linear layer's ten outputs",
    "loss": "the batch's mean cross-entropy",
    "grad": "the loss's derivative by the logits, or by a parameter",
    "adam.m": "Adam's running mean of the gradients, after the update",
    "adam.v": "Adam's running mean of their squares, after the update",
    "params": "a parameter after the update",
    "step": "the same, of the step that trains: it shows only its result",
    "steps": "many steps in one call: their losses, and the state after them",
    "evaluate": "a test's mean loss, and its images by label and predicted class",
    "predict": "the probabilities of each class",
    "fit": "a whole training: losses, tests, and the states at its pauses",
}
"""What a stage is, by its name or the beginning of it."""


_TEMPLATES = templates(Path(__file__).parent)
_TEMPLATES.globals |= {
    "plots": plots,
    "columns": EVIDENCE,
    "evidence": lambda c: {name: show(c) for name, show in EVIDENCE.items()},
    "untraced": (*STEP_STAGES, *LOOP_STAGES),
    "limit": FREE_RUN_LIMIT,
    "glossary": GLOSSARY,
    "printed": TUTORIAL,
    "error": network.error,
    "facts": network.facts,
    "decades": network.DECADES,
}
_PAGES = {
    Verdict: "check.html",
    Trajectory: "train.html",
    Benchmark: "bench.html",
    Proof: "prove.html",
}


Reported = Verdict | Trajectory | Benchmark | Proof
"""What has a page."""


def write_report(result: Reported, path: Path | str) -> None:
    """Write a result's page to a file, which is whole or not there; raise OutputError."""
    path = Path(path)
    if type(result) not in _PAGES:
        kinds = ", ".join(kind.__name__ for kind in _PAGES)
        raise OutputError(f"{type(result).__name__} has no page; give one of {kinds}")
    require_page(path)
    write_file(path, page(result).encode())


def page(result: Reported) -> str:
    """Return a page for a result; the same result gives the same bytes."""
    values: dict[str, Any] = {}
    if isinstance(result, Trajectory):
        drifts = {"float64": result.float64, "float32": result.float32}
        values["drifts"] = drifts = {dtype: drift for dtype, drift in drifts.items() if drift}
        values["epochs"] = zip(*map(result.epoch_losses, drifts.values()), strict=True)
        confusions = [test.confusion for test in result.tests]
        values["most_mistaken"] = np.max([counts * (1 - np.eye(10)) for counts in confusions])
    if isinstance(result, Proof):
        values["layers"] = list(network.rows(result))
        values["coverage"] = {name: network.spoken(x) for name, x in result.coverage.items()}
    environment = environment_lines(dict(result.environment))
    return _TEMPLATES.get_template(_PAGES[type(result)]).render(
        values, result=result, environment=environment, json=json_text(result)
    )
