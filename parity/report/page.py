"""A verdict and its evidence as one HTML page that needs nothing else: no network, no script.

The text is in the templates, one for each kind of result; this module gives them their values.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from parity.benchmark.result import Benchmark, Phase
from parity.benchmark.stats import Spread
from parity.contract.files.jsonable import to_json
from parity.judge.check import LOOP_STAGES, Verdict
from parity.judge.compare import Comparison
from parity.judge.lockstep import FREE_RUN_LIMIT, Drift
from parity.judge.trajectory import Trajectory
from parity.report import plots
from parity.subjects.environment import environment_lines
from parity.truth.propagation import STEP_STAGES

TUTORIAL = (278.862, 108.298, 78.554, 64.227, 55.757, 49.155, 44.339, 39.983, 36.913, 32.992)
"""The losses that the tutorial prints, each the sum of an epoch's 938 batches of 64."""

Values = dict[str, Any]
"""What a template shows, by the names in it."""


def page(result: Verdict | Trajectory | Benchmark) -> str:
    """Return a page for a result; the same result gives the same bytes."""
    match result:
        case Verdict():
            kind, title, passed = "check", f"{result.a} and {result.b}", result.agrees
            heading = "They agree" if passed else "They disagree"
            values = _check(result)
        case Trajectory():
            kind, title, passed = "train", f"{result.a} and {result.b}", result.agrees
            heading = "Same algorithm" if passed else "Different"
            values = _train(result)
        case Benchmark():
            kind, title, passed = "bench", f"{len(result.arms)} arms", result.passed
            heading = "Every arm counts" if passed else "Not all of it counts"
            values = _bench(result)
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(f"{kind}.html").render(
        title=f"parity {kind}: {title}",
        heading=heading,
        passed=passed,
        result=result,
        environment=environment_lines(result.environment),
        json=json.dumps(to_json(result), indent=2, allow_nan=False),
        plots=plots,
        **values,
    )


def _check(verdict: Verdict) -> Values:
    first = verdict.first_disagreement
    return {
        "subjects": (verdict.a, verdict.b),
        "first": first and _parting(*first),
        "columns": _COLUMNS,
        "evidence": _evidence,
    }


_COLUMNS = ("error / bound", "error", "bound", "place", "got", "expected", "elements outside")


def _evidence(comparison: Comparison) -> dict[str, str]:
    exact = comparison.agrees and comparison.error == 0
    values = (
        "exact" if exact else f"{comparison.ratio:.3g}",
        f"{comparison.error:.3g}",
        f"{comparison.bound:.3g}",
        ", ".join(map(str, comparison.index)) or "–",
        f"{comparison.got:.9g}",
        f"{comparison.expected:.9g}",
        f"{comparison.outside:,} of {comparison.elements:,}",
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _parting(subject: str, comparison: Comparison) -> Values:
    wrong = {"mismatch": comparison.mismatch} if comparison.mismatch else _evidence(comparison)
    return {
        "trained": comparison.stage in (*STEP_STAGES, *LOOP_STAGES),
        "evidence": {"stage": comparison.stage, "subject": subject, **wrong},
    }


def _train(run: Trajectory) -> Values:
    failure = run.failure
    drifts = {"float64": run.float64} | ({"float32": run.float32} if run.float32 else {})
    filters = [state.params["conv1.weight"] for state in run.last().states]
    mistaken = [each.confusion - np.diag(np.diag(each.confusion)) for each in run.tests]
    tutorial = _tutorial(run)
    return {
        "subjects": (run.a, run.b),
        "first": failure
        and _parting(f"{failure.subject}, in step {failure.step:,}", failure.comparison),
        "drifts": drifts,
        "limit": FREE_RUN_LIMIT,
        "truth": run.float32 and run.float32.from_truth,
        "tutorial": tutorial,
        "epochs": list(_epochs(run, drifts, tutorial)),
        "most_mistaken": max(int(counts.max()) for counts in mistaken),
        "filters": filters,
        "filters_apart": f"{np.abs(filters[0] - filters[1]).max():.2g}",
    }


def _tutorial(run: Trajectory) -> Sequence[float]:
    """Return the tutorial's losses of the whole epochs that a training by its recipe has made."""
    recipe = run.recipe
    ours = recipe.dataset, recipe.batch_size, recipe.lr, run.batches_per_epoch
    return TUTORIAL[: run.steps // 938] if ours == ("mnist", 64, 1e-3, 938) else ()


def _epochs(
    run: Trajectory, drifts: Mapping[str, Drift], tutorial: Sequence[float]
) -> Iterator[list[str]]:
    """Yield a row an epoch: its number and steps, in each precision both losses, the tutorial's."""
    epochs = zip(*(run.epoch_losses(drift) for drift in drifts.values()), strict=True)
    for index, pairs in enumerate(epochs):
        steps = min(run.batches_per_epoch, run.steps - index * run.batches_per_epoch)
        row = [str(index + 1), f"{steps:,}"]
        for a, b in pairs:
            row += [f"{a:.3f}", f"{b:.3f}", f"{abs(a - b):.2g}"]
        if tutorial:
            row.append(f"{tutorial[index]:.3f}" if index < len(tutorial) else "–")
        yield row


def _bench(benchmark: Benchmark) -> Values:
    def spreads(size: int, phase: Phase) -> dict[str, Spread]:
        """Return the timings of the arms that count."""
        arms = benchmark.timed[size].items()
        return {arm: timed.spread(phase) for arm, timed in arms if timed.failed is None}

    return {"spreads": spreads}
