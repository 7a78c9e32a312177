"""A verdict and its evidence as one HTML page that needs nothing else: no network, no script."""

import json
from collections.abc import Iterator

import numpy as np

from parity.benchmark.result import Benchmark
from parity.contract.recipe import Recipe
from parity.judge.check import LOOP_STAGES, Verdict
from parity.judge.compare import Comparison
from parity.judge.lockstep import FREE_RUN_LIMIT, Drift
from parity.judge.trajectory import Trajectory
from parity.report import bench as speed
from parity.report import plots
from parity.report.markup import Html, document, facts, figure, pairs, row, section, table, tag
from parity.subjects.environment import environment_lines
from parity.truth.propagation import STEP_STAGES

TUTORIAL = (278.862, 108.298, 78.554, 64.227, 55.757, 49.155, 44.339, 39.983, 36.913, 32.992)
"""The losses that the tutorial prints, each the sum of an epoch's 938 batches of 64."""


def page(result: Verdict | Trajectory | Benchmark) -> str:
    """Return a page for a result; the same result gives the same bytes."""
    match result:
        case Verdict():
            title, passed = f"parity check: {result.a} and {result.b}", result.agrees
            heading = "They agree" if passed else "They disagree"
            sections = _check(result)
        case Trajectory():
            title, passed = f"parity train: {result.a} and {result.b}", result.agrees
            heading = "Same algorithm" if passed else "Different"
            sections = _train(result)
        case Benchmark():
            title, passed = f"parity bench: {len(result.arms)} arms", result.passed
            heading = "Every arm counts" if passed else "Not all of it counts"
            sections = speed.sections(result)
    verdict = tag(
        "header",
        tag("p", title, class_="what"),
        tag("h1", heading),
        *(tag("p", line) for line in str(result).splitlines()),
        class_="agree" if passed else "disagree",
    )
    origin = [
        section("Environment", "", tag("pre", "\n".join(environment_lines(result.environment))))
    ]
    if not isinstance(result, Benchmark):
        hashes = pairs(result.inputs.items())
        origin.append(section("Inputs", "The SHA-256 of what was computed from.", hashes))
    details = tag(
        "details",
        tag("summary", "Everything, as --json writes it"),
        tag("pre", json.dumps(result.to_json(), indent=2, allow_nan=False)),
    )
    return document(title, verdict, tag("main", *sections, *origin, details))


def _check(verdict: Verdict) -> Iterator[Html]:
    subjects = verdict.a, verdict.b
    first = verdict.first_disagreement
    if first is not None:
        yield _parting(first[0], first[1])
    yield section(
        "What was compared",
        "Each stage of each subject with the same stage in NumPy float64, computed from what the"
        " subject itself had before it. The bound is what rounding can do in that one stage. Then"
        " the step that trains, of which only the result shows, and two short epochs of training.",
        facts(_compared(verdict.recipe, subjects, verdict.ran)),
    )
    yield section(
        "Error as a fraction of its bound",
        "The worst element of each stage. Rounding stays left of the line.",
        tag("div", figure(plots.stage_bars(verdict.stages, subjects), ""), class_="tall"),
    )
    names = ("error / bound", "error", "bound", "place", "got", "expected", "elements outside")
    subject = tag("th", "subject", class_="text")
    head = tag("tr", tag("th", "stage"), subject, *(tag("th", name) for name in names))
    yield section(
        "Stage by stage",
        "In the order of the computation: the worst element of each stage, its place in canonical"
        " layout, and how many elements are outside their bounds. Not judged is what comes after a"
        " mistake that leaves nothing to judge it on, and the oracle's own loop.",
        table(
            [head],
            *(
                _stage(stage, pair, subjects, first is not None and first[1].stage == stage)
                for stage, pair in verdict.stages.items()
            ),
        ),
    )


def _stage(
    stage: str,
    pair: tuple[Comparison | None, Comparison | None],
    subjects: tuple[str, str],
    first: bool,
) -> Html:
    """Return a stage's two rows, one for each subject."""
    rows = []
    for key, subject, comparison in zip("ab", subjects, pair, strict=True):
        cells = [tag("td", subject, class_=f"text {key}")]
        if comparison is None:
            cells.append(tag("td", "not judged", class_="text", colspan=7))
        elif comparison.mismatch:
            cells.append(tag("td", comparison.mismatch, class_="text", colspan=7))
        else:
            cells += [tag("td", value) for value in _evidence(comparison).values()]
        name = [] if rows else [tag("th", stage, rowspan=2)]
        outside = comparison is not None and not comparison.agrees
        rows.append(tag("tr", *name, *cells, class_="outside" if outside else ""))
    return tag("tbody", *rows, class_="first" if first else "")


def _evidence(comparison: Comparison) -> dict[str, str]:
    exact = comparison.agrees and comparison.error == 0
    return {
        "error / bound": "exact" if exact else f"{comparison.ratio:.3g}",
        "error": f"{comparison.error:.3g}",
        "bound": f"{comparison.bound:.3g}",
        "place": ", ".join(map(str, comparison.index)) or "–",
        "got": f"{comparison.got:.9g}",
        "expected": f"{comparison.expected:.9g}",
        "elements outside": f"{comparison.outside:,} of {comparison.elements:,}",
    }


def _parting(subject: str, comparison: Comparison) -> Html:
    wrong = {"mismatch": comparison.mismatch} if comparison.mismatch else _evidence(comparison)
    if comparison.stage in (*STEP_STAGES, *LOOP_STAGES):
        how = (
            "Every stage of a traced step is right: the mistake is in what training does otherwise."
        )
    else:
        how = (
            "It is judged on the subject's own inputs to it, so the mistake is in this stage and"
            " not before it."
        )
    return section(
        "Where they part",
        f"The first stage outside its bound. {how}",
        facts({"stage": comparison.stage, "subject": subject, **wrong}.items()),
    )


def _compared(
    recipe: Recipe, subjects: tuple[str, str], ran: tuple[Recipe, Recipe]
) -> list[tuple[str, object]]:
    return [
        *(
            (key, tag("span", f"{subject} ({used.mode}, {used.device})", class_=key))
            for key, subject, used in zip("ab", subjects, ran, strict=True)
        ),
        ("data set", recipe.dataset),
        ("precision", recipe.dtype),
        ("batch size", recipe.batch_size),
        ("learning rate", recipe.lr),
        ("seed", recipe.seed),
    ]


def _train(run: Trajectory) -> Iterator[Html]:
    subjects = run.a, run.b
    drifts = {"float64": run.float64} | ({"float32": run.float32} if run.float32 else {})
    if run.failure is not None:
        where = f"{run.failure.subject}, in step {run.failure.step:,}"
        yield _parting(where, run.failure.comparison)
    yield section(
        "What was compared",
        "Trainings from the same weights on the same batches.",
        facts(
            [
                *_compared(run.recipe, subjects, run.ran),
                ("training images", run.recipe.limit or "all"),
                ("steps", f"{run.steps:,}; an epoch has {run.batches_per_epoch:,}"),
                ("steps judged one by one", f"{run.judged:,} of each" if run.judged else "none"),
            ]
        ),
    )
    yield _losses(run, drifts)
    yield _drift(run, drifts)
    yield section(
        f"{run.tests[0].examples:,} test images of {run.recipe.dataset}",
        f"The networks that the {run.recipe.dtype} trainings ended with. Rows are labels, columns"
        " what a network takes them for; a frame marks what the two count differently.",
        tag("div", _confusion(run, 0), _confusion(run, 1), class_="figures"),
    )
    weights = run.last.states[0].params["conv1.weight"], run.last.states[1].params["conv1.weight"]
    yield section(
        "What they learned",
        "The 16 filters of conv1, on one scale. No weight of them differs by more than"
        f" {np.abs(weights[0] - weights[1]).max():.2g}.",
        tag("div", figure(plots.filters(weights, subjects), ""), class_="wide"),
    )


def _losses(run: Trajectory, drifts: dict[str, Drift]) -> Html:
    """Show each epoch's losses, beside the tutorial's if the recipe is its, and their course."""
    recipe = run.recipe
    ours = recipe.dataset, recipe.batch_size, recipe.lr, run.batches_per_epoch
    tutorial = TUTORIAL[: run.steps // 938] if ours == ("mnist", 64, 1e-3, 938) else ()
    last = ["tutorial"] if tutorial else []
    groups = [
        tag("th", "", colspan=2),
        *(tag("th", dtype, colspan=3) for dtype in drifts),
        *(tag("th", "") for _ in last),
    ]
    names = ["epoch", "steps", *(run.a, run.b, "apart") * len(drifts), *last]
    rows = []
    epochs = zip(*(run.epoch_losses(drift) for drift in drifts.values()), strict=True)
    for index, pairs_of_losses in enumerate(epochs):
        steps = min(run.batches_per_epoch, run.steps - index * run.batches_per_epoch)
        cells = [f"{index + 1}", f"{steps:,}"]
        for a, b in pairs_of_losses:
            cells += [f"{a:.3f}", f"{b:.3f}", f"{abs(a - b):.2g}"]
        if tutorial:
            cells.append(f"{tutorial[index]:.3f}" if index < len(tutorial) else "–")
        rows.append(row(*cells))
    note = "The sum of an epoch's batch losses."
    if tutorial:
        note += (
            " The tutorial's training had other weights and another order: its losses are those of"
            " another seed."
        )
    curves = plots.losses(
        run.last, (run.a, run.b), batches_per_epoch=run.batches_per_epoch, tutorial=tutorial
    )
    return section(
        "Training loss",
        note,
        table([tag("tr", *groups), tag("tr", *(tag("th", n) for n in names))], tag("tbody", *rows)),
        tag(
            "div",
            figure(curves, f"Loss in {recipe.dtype}"),
            figure(plots.loss_gaps(drifts), "How far apart the losses are"),
            class_="figures",
        ),
    )


def _drift(run: Trajectory, drifts: dict[str, Drift]) -> Html:
    figures = [figure(plots.parameter_gaps(drifts), "How far apart the parameters are")]
    note = f"In float64 the two may part by {FREE_RUN_LIMIT:g} and no more."
    if run.float32 is not None and run.float32.from_truth is not None:
        picture = plots.distances(run.float32.steps, run.float32.from_truth, (run.a, run.b))
        figures.append(figure(picture, "How far each float32 training is from float64"))
        note += (
            f" In float32 they drift: {run.a} ends {run.float32.from_truth[0][-1]:.2g} from the"
            f" float64 training, {run.b} {run.float32.from_truth[1][-1]:.2g} (root mean square)."
            " How far, says little by itself: what each step does to the state that it starts in is"
            " judged one by one."
        )
    return section("Drift", note, tag("div", *figures, class_="figures"))


def _confusion(run: Trajectory, side: int) -> Html:
    """Show one confusion matrix; only mistakes are shaded, on one scale for both."""
    test, other = run.tests[side], run.tests[1 - side]
    most = max(int((each.confusion - np.diag(np.diag(each.confusion))).max()) for each in run.tests)
    rows = []
    for label in range(10):
        cells = []
        for predicted, count in enumerate(test.confusion[label].tolist()):
            classes = ["right"] if predicted == label else []
            classes += ["differs"] if count != other.confusion[label, predicted] else []
            shade = 0.1 + 0.6 * count / most if count and predicted != label else 0
            cells.append(
                tag(
                    "td",
                    count or "",
                    class_=" ".join(classes),
                    style=f"background: rgb(213 94 0 / {shade:.2f})" if shade else "",
                )
            )
        rows.append(tag("tr", tag("th", label), *cells))
    head = tag("tr", tag("th", ""), *(tag("th", predicted) for predicted in range(10)))
    matrix = tag("table", tag("thead", head), tag("tbody", *rows), class_="confusion")
    caption = f"{(run.a, run.b)[side]}: {test.accuracy:.2%} right, loss {test.loss:.4f}"
    return tag("figure", tag("figcaption", caption), matrix)
