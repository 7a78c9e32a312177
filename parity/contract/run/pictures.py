"""A training in pictures, by matplotlib: losses, accuracy, filters, images."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image

from parity.contract.run.history import BAND, TUTORIAL, Epoch

_OURS, _BAND, _INK = "#0072b2", "#98a2b3", "#1d2530"


def curves(epochs: Sequence[Epoch], *, like_tutorial: bool) -> Figure:
    """Draw loss and test accuracy by epoch; beside a training like the tutorial's, its losses."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    _losses(left, epochs, like_tutorial=like_tutorial)
    _accuracies(right, epochs)
    return figure


def panels(epochs: Sequence[Epoch], *, like_tutorial: bool) -> tuple[Figure, Figure]:
    """Draw both of `curves`, each by itself, so that they stand above each other on a phone."""
    figures = Figure((4.5, 3.2), layout="constrained"), Figure((4.5, 3.2), layout="constrained")
    _losses(figures[0].subplots(), epochs, like_tutorial=like_tutorial)
    _accuracies(figures[1].subplots(), epochs)
    return figures


def _losses(axes: Axes, epochs: Sequence[Epoch], *, like_tutorial: bool) -> None:
    if like_tutorial:
        mean, spread = np.array(BAND).T
        places = np.arange(1, len(mean) + 1)
        axes.fill_between(places, mean - 2 * spread, mean + 2 * spread, color=_BAND, alpha=0.3,
                          label="16 seeds, ± 2 deviations")  # fmt: skip
        axes.plot(places, TUTORIAL, "o", color=_INK, markersize=4, label="tutorial")
    x, y = [epoch.epoch for epoch in epochs], [epoch.loss for epoch in epochs]
    axes.plot(x, y, ".-", color=_OURS, label="this training")
    axes.set(ylabel="loss, summed over batches", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    _by_epoch(axes)
    axes.legend(frameon=False, fontsize=9)


def _accuracies(axes: Axes, epochs: Sequence[Epoch]) -> None:
    x = [epoch.epoch for epoch in epochs]
    axes.plot(x, [100 * epoch.test_accuracy for epoch in epochs], ".-", color=_OURS)
    axes.set(ylabel="test accuracy, %")
    _by_epoch(axes)


def _by_epoch(axes: Axes) -> None:
    axes.set(xlabel="epoch")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e7ec")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def filters(weight: Float[np.ndarray, "16 1 3 3"]) -> Figure:
    """Draw conv1's filters on one scale, red above zero and blue below."""
    figure = Figure(figsize=(8, 0.6), layout="constrained")
    top = float(np.abs(weight).max())
    for axes, each in zip(figure.subplots(1, len(weight)), weight[:, 0], strict=True):
        axes.imshow(each, cmap="RdBu_r", vmin=-top, vmax=top)
        axes.set_axis_off()
    return figure


def figure_uri(figure: Figure) -> str:
    """Return a figure as SVG in a data URI; the same numbers give the same bytes."""
    buffer = io.BytesIO()
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "training"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _uri("svg+xml", buffer.getvalue())


def image_uri(image: UInt8[np.ndarray, "28 28"]) -> str:
    """Return an image as PNG in a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return _uri("png", buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
