"""A verdict and its evidence as one HTML page that needs nothing else: no network, no script.

The text is in the templates, one for each kind of result; this module gives them their values.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from parity.benchmark.result import Benchmark
from parity.contract.files.jsonable import json_text
from parity.judge.check import LOOP_STAGES, Verdict
from parity.judge.compare import Comparison
from parity.judge.trajectory import FREE_RUN_LIMIT, Trajectory
from parity.report import plots
from parity.subjects.environment import environment_lines
from parity.truth.propagation import STEP_STAGES

TUTORIAL = (278.862, 108.298, 78.554, 64.227, 55.757, 49.155, 44.339, 39.983, 36.913, 32.992)
"""The losses that the tutorial prints, each the sum of an epoch's 938 batches of 64."""

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


def page(result: Verdict | Trajectory | Benchmark) -> str:
    """Return a page for a result; the same result gives the same bytes."""
    template, values = _PAGES[type(result)]
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(template).render(
        result=result,
        environment=environment_lines(result.environment),
        json=json_text(result),
        plots=plots,
        **values(result),
    )


def _check(verdict: Verdict) -> dict[str, Any]:
    first = verdict.first_disagreement
    return {"first": first and _parting(*first), "columns": EVIDENCE}


def _parting(subject: str, comparison: Comparison) -> dict[str, Any]:
    wrong = {"mismatch": comparison.mismatch}
    if not comparison.mismatch:
        wrong = {name: show(comparison) for name, show in EVIDENCE.items()}
    return {
        "trained": comparison.stage in (*STEP_STAGES, *LOOP_STAGES),
        "evidence": {"stage": comparison.stage, "subject": subject, **wrong},
    }


def _train(run: Trajectory) -> dict[str, Any]:
    failed = run.failure
    drifts = {"float64": run.float64} | ({"float32": run.float32} if run.float32 else {})
    a, b = (state.params["conv1.weight"] for state in run.last().states)
    ours = run.recipe.dataset, run.recipe.batch_size, run.recipe.lr, run.batches_per_epoch
    mistaken = [test.confusion - np.diag(np.diag(test.confusion)) for test in run.tests]
    return {
        "first": failed
        and _parting(f"{failed.subject}, in step {failed.step:,}", failed.comparison),
        "drifts": drifts,
        "limit": FREE_RUN_LIMIT,
        "tutorial": TUTORIAL[: run.steps // 938] if ours == ("mnist", 64, 1e-3, 938) else (),
        "epochs": zip(*map(run.epoch_losses, drifts.values()), strict=True),
        "most_mistaken": np.max(mistaken),
        "filters": (a, b),
        "filters_apart": f"{np.abs(a - b).max():.2g}",
    }


_PAGES: Mapping[type, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    Verdict: ("check.html", _check),
    Trajectory: ("train.html", _train),
    Benchmark: ("bench.html", lambda _: {}),
}
