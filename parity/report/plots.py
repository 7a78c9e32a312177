"""The report's figures, each in itself: SVG in a data URI. The same numbers give the same bytes."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from parity.benchmark.stats import Speed
from parity.judge.compare import Comparison
from parity.judge.trajectory import FREE_RUN_LIMIT, Drift

COLOURS = ("#0072b2", "#d55e00")
"""Of the two subjects: a blue and a vermilion that colour-blind readers can tell apart."""
_DTYPE_COLOURS = {"float64": "#475467", "float32": "#aa4499"}
_LIMIT, _INK, _EDGE = "#b42318", "#1d2530", "#98a2b3"

_BESIDE: Any = {"textcoords": "offset points", "va": "center_baseline", "fontsize": 7.5}
_styled = matplotlib.style.context(["default", Path(__file__).with_suffix(".mplstyle")])


class Picture(NamedTuple):
    """A figure, and in words what it shows."""

    uri: str
    alt: str


class _Line(NamedTuple):
    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    colour: str
    width: float = 1.5


@_styled
def stage_bars(
    stages: Mapping[str, tuple[Comparison | None, Comparison | None]], subjects: tuple[str, str]
) -> Picture:
    """Draw each stage's worst error as a fraction of its bound, a bar for each subject."""
    ratios = [c.ratio for pair in stages.values() for c in pair if c is not None]
    largest = max([ratio for ratio in ratios if ratio < math.inf], default=0)
    high = 10 * largest if max(ratios, default=0) > 1 else 1.25
    figure, axes = _rows(list(stages), 0.32, width=4.6, xlabel="worst error / its bound")
    if high > 1.25:  # the part up to the bound stays linear, beyond it a factor is what counts
        high = max(high, 100.0)
        axes.set_xscale("symlog", linthresh=1, linscale=3)
    axes.set_xlim(0, high)
    near = 0.8 if high == 1.25 else 0.5
    box = {"fc": "white", "ec": "none", "pad": 0.4}
    for side, (subject, colour) in enumerate(zip(subjects, COLOURS, strict=True)):
        rows = np.arange(len(stages)) + 0.4 * side - 0.2
        comparisons = [pair[side] for pair in stages.values()]
        ends = [0.0 if c is None else min(c.ratio, high) for c in comparisons]
        axes.barh(rows, ends, 0.36, color=colour, label=subject)
        for row, end, comparison in zip(rows, ends, comparisons, strict=True):
            text, ink = _bar_text(comparison)
            style = {"xytext": (4, 0), "ha": "left", "color": ink, "bbox": box}
            if end == high or near < end <= 1:  # inside the bar: the axis, or the bound, is near
                style = {"xytext": (-4, 0), "ha": "right", "color": "white"}
            axes.annotate(text, (end, row), **_BESIDE, **style)
    axes.axvline(1, color=_LIMIT)
    above = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    axes.annotate("bound", (1, 1), (0, 3), ha="center", color=_LIMIT, **above)
    figure.legend(loc="outside upper right", ncols=2)
    most = f"the largest is {max(ratios, default=math.nan):.3g}"
    alt = f"Bars, two for each of {len(stages)} stages: worst error over bound; {most}"
    return _picture(figure, alt)


@_styled
def phase_times(phase: str, speeds: Mapping[str, Speed]) -> Picture:
    """Draw each arm's seconds on a log scale, with quartiles; pale where they are unstable."""
    drawn = {
        arm: (found.seconds.lower, found.seconds.median, found.seconds.upper)
        for arm, found in speeds.items()
    }
    figure = _intervals(drawn, speeds, " s", f"seconds of one {phase}: median, quartiles")
    medians = ", ".join(f"{arm} {median:.3g} s" for arm, (_, median, _) in drawn.items())
    return _picture(figure, f"One {phase}'s median time: {medians}")


@_styled
def phase_speeds(phase: str, speeds: Mapping[str, Speed], baseline: str) -> Picture:
    """Draw how many times as fast as the baseline each arm is, with intervals of 95 %."""
    drawn = {
        arm: (found.speed.low, found.speed.median, found.speed.high)
        for arm, found in speeds.items()
        if found.speed
    }
    figure = _intervals(drawn, speeds, "", f"times as fast as {baseline}")
    figure.axes[0].axvline(1, color=_EDGE)
    medians = ", ".join(f"{arm} {median:.3g}" for arm, (_, median, _) in drawn.items())
    return _picture(figure, f"One {phase}, times as fast as {baseline}: {medians}")


def _intervals(
    drawn: Mapping[str, tuple[float, float, float]],
    speeds: Mapping[str, Speed],
    unit: str,
    xlabel: str,
) -> Figure:
    """Return a figure of each arm's (low, median, high), on a log scale."""
    figure, axes = _rows(list(drawn), 0.36, width=4.6, xscale="log", xlabel=xlabel)
    for row, (name, (low, median, high)) in enumerate(drawn.items()):
        axes.plot([low, high], [row, row], color=_INK)
        axes.plot(
            median, row, "o", color=COLOURS[0], alpha=0.4 if speeds[name].seconds.unstable else 1
        )
        axes.annotate(f"{median:.3g}{unit}", (high, row), (5, 0), **_BESIDE)
    axes.margins(x=0.3)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    return figure


def _rows(
    names: list[str], height: float, *, width: float = 6.4, **options: Any
) -> tuple[Figure, Axes]:
    """Return a figure for horizontal bars, `width` inches, a row of `height` for each name."""
    figure = Figure(figsize=(width, 0.9 + height * len(names)))
    axes = figure.add_subplot(**options)
    _name_rows(axes, names)
    return figure, axes


def _name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _bar_text(comparison: Comparison | None) -> tuple[str, str]:
    if comparison is None:
        return "not judged", _EDGE
    if not comparison.agrees:
        return ("wrong" if math.isinf(comparison.ratio) else f"{comparison.ratio:.3g}"), _LIMIT
    return ("exact" if comparison.error == 0 else f"{comparison.ratio:.2g}"), _INK


def losses(
    drift: Drift, subjects: tuple[str, str], *, batches_per_epoch: int, tutorial: Sequence[float]
) -> Picture:
    """Draw the loss of a batch, smoothed by a running mean, and the tutorial's of each epoch."""
    window = max(1, min(50, len(drift.losses[0]) // 20))
    means = [np.convolve(each, np.full(window, 1 / window), mode="valid") for each in drift.losses]
    x = np.arange(len(means[0])) + (window + 1) / 2
    series = zip(subjects, means, COLOURS, (4, 1.2), strict=True)
    lines = [_Line(subject, x, mean, colour, width) for subject, mean, colour, width in series]
    if tutorial:
        starts = np.arange(len(tutorial)) * batches_per_epoch
        x = np.column_stack([starts, starts + batches_per_epoch, starts]).ravel()
        y = np.column_stack([tutorial, tutorial, np.full(len(tutorial), np.nan)]).ravel()
        lines.append(_Line("tutorial's mean of an epoch", x, y / batches_per_epoch, _INK, 2))
    return _chart(lines, "loss of a batch" + (f", mean of {window}" if window > 1 else ""))


def loss_gaps(drifts: Mapping[str, Drift]) -> Picture:
    """Draw how far the losses of the two are apart, in each precision."""
    lines = []
    for dtype, drift in drifts.items():
        gaps = [abs(a - b) for a, b in zip(*drift.losses, strict=True)]
        lines.append(_Line(dtype, range(1, len(gaps) + 1), gaps, _DTYPE_COLOURS[dtype], 0.8))
    return _chart(lines, "difference of the losses", gaps=True, limit=FREE_RUN_LIMIT)


def parameter_gaps(drifts: Mapping[str, Drift]) -> Picture:
    """Draw how far the parameters of the two are apart, in each precision."""
    lines = [_Line(t, drift.steps, drift.apart, _DTYPE_COLOURS[t]) for t, drift in drifts.items()]
    return _chart(lines, "largest difference of a parameter", gaps=True, limit=FREE_RUN_LIMIT)


def distances(drift: Drift, subjects: tuple[str, str]) -> Picture:
    """Draw how far each subject's float32 training is from the float64 one."""
    series = zip(subjects, drift.from_truth or (), COLOURS, strict=True)
    lines = [_Line(subject, drift.steps, y, colour) for subject, y, colour in series]
    return _chart(lines, "root mean square distance", gaps=True)


@_styled
def _chart(
    lines: Sequence[_Line], ylabel: str, *, gaps: bool = False, limit: float | None = None
) -> Picture:
    """Draw what of the lines is above 0 on a logarithmic axis; of gaps the steps are on one too."""
    figure = Figure(figsize=(5.4, 3.6))
    axes = figure.add_subplot(xlabel="step", ylabel=ylabel)
    ends = []
    for line in lines:
        label = _label(line) if gaps else line.label
        shown = np.where(np.isfinite(line.y) & np.greater(line.y, 0), line.y, np.nan)
        marker = "o" if len(shown) <= 500 else ""  # so that a point between zeros is seen
        style = {"ms": min(3, 180 / len(shown)), "color": line.colour, "lw": line.width}
        axes.plot(line.x, shown, marker=marker, label=label, **style)
        if not np.isnan(shown).all():
            ends.append(f"{label} ends at {shown[~np.isnan(shown)][-1]:.3g}")
    if limit is not None and ends:
        axes.axhline(limit, color=_LIMIT, linestyle="--", linewidth=1, label="float64's limit")
    if gaps:
        axes.set(xscale="log", xlim=(0.9, 1.1 * max(max(line.x) for line in lines)))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter("")
    if not ends:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "nothing above 0", transform=axes.transAxes, ha="center")
    else:
        axes.set_yscale("log")
        if not gaps:
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
    figure.legend(loc="outside upper left", ncols=3)
    return _picture(figure, f"{ylabel} over the steps: {'; '.join(ends) or 'nothing above 0'}")


def _label(line: _Line) -> str:
    """Return a line's label, and how many of its values a logarithmic axis does not show."""
    counts = {"0": np.equal(line.y, 0).sum(), "not finite": (~np.isfinite(line.y)).sum()}
    hidden = [f"{what} at {count}" for what, count in counts.items() if count]
    return f"{line.label} ({', '.join(hidden)} of {len(line.y)})" if hidden else line.label


@_styled
def filters(
    weights: tuple[Float[np.ndarray, "16 1 3 3"], Float[np.ndarray, "16 1 3 3"]],
    subjects: tuple[str, str],
) -> Picture:
    """Draw conv1's filters of both on one colour scale, red above zero and blue below."""
    sizes = np.abs(weights)
    top = sizes[np.isfinite(sizes)].max(initial=1e-30)
    scale = ScalarMappable(Normalize(-top, top), "RdBu_r")
    edges = np.cumsum([0, *([1, 1, 1, 0.4] * 4)[:-1]])
    figure = Figure(figsize=(7.2, 3.8))
    panels = figure.subplots(1, 2, gridspec_kw={"wspace": 0.12})
    for axes, weight, subject, colour in zip(panels, weights, subjects, COLOURS, strict=True):
        gap = [(0, 0), (0, 0), (0, 1), (0, 1)]  # between the tiles
        framed = np.pad(weight.reshape(4, 4, 3, 3), gap, constant_values=np.nan)
        tiles = framed.transpose(0, 2, 1, 3).reshape(16, 16)[:-1, :-1]
        border = {"edgecolors": "face", "linewidth": 0.2}
        axes.pcolormesh(edges, edges, tiles, cmap=scale.cmap, norm=scale.norm, **border)
        axes.set_title(subject, color=colour)
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.invert_yaxis()
    figure.colorbar(scale, ax=panels, shrink=0.9, label="weight")
    alt = f"conv1's 16 filters of both side by side, with weights up to {top:.3g}"
    return _picture(figure, alt)


def _picture(figure: Figure, alt: str) -> Picture:
    file = io.BytesIO()
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    return Picture(f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}", alt)
