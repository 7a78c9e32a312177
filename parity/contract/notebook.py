"""How results show themselves in a notebook: a picture above their text."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS, _LIMIT = ("#0072b2", "#d55e00"), "#b42318"


def shown(text: str, figure: "Figure") -> str:
    """Return a figure above a text, as HTML that needs nothing else."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=72)
    image = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="" src="data:image/png;base64,{image}"><pre>{html.escape(text)}</pre>'


def bars(
    rows: Mapping[str, Sequence[float]], names: Sequence[str], *, limit: float | None, label: str
) -> "Figure":
    """Return horizontal bars on a logarithmic axis: one for each row and each of the names.

    Zeros and what is no number have no bar; `limit` is a line that bars should not reach.
    """
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.8 + 0.25 * len(rows)), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel=label)
    values = np.array([*rows.values()], dtype=float).reshape(len(rows), len(names))
    drawn = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    height = 0.8 / len(names)
    for side, name in enumerate(names):
        places = np.arange(len(rows)) + height * (side - (len(names) - 1) / 2)
        axes.barh(places, drawn[:, side], height, color=_COLOURS[side], label=name)
    if limit is not None:
        axes.axvline(limit, color=_LIMIT)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure
