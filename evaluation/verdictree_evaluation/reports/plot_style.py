"""How the report's figures look."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from verdictree_evaluation.data.arrays import Scored

BLUE, ORANGE, GREEN, GREY = "#2f6db3", "#d9781e", "#3d8f5f", "#9aa3ad"
STYLE: dict[str, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#68707a",
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e9ed",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "verdictree",
}


def small_multiples(scored: Scored, draw: Any, x_label: str, y_label: str, legend: bool = False) -> str:
    """One small diagram a category, drawn by `draw(axes, column)`, with common labels."""
    count = len(scored.codes)
    columns = min(5, count)
    lines = -(-count // columns)
    with matplotlib.rc_context({**STYLE, "font.size": 8, "axes.titlesize": 8.5}):
        figure = Figure(figsize=(9, 1.9 * lines + 0.4), layout="constrained")
        cells = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat
        for column, axes in enumerate(_used(cells, count)):
            draw(axes, column)
        figure.supxlabel(x_label, fontsize=9)
        figure.supylabel(y_label, fontsize=9)
        if legend:
            found = next((axes.get_legend_handles_labels() for axes in figure.axes if axes.lines), ([], []))
            figure.legend(*found, loc="outside upper right", ncols=3)
        return to_svg(figure)


def _used(cells: Iterable[Any], count: int) -> Sequence[Any]:
    drawn = list(cells)
    for spare in drawn[count:]:
        spare.set_visible(False)
    return drawn[:count]


def plain(text: str) -> str:
    """The text as it is: matplotlib would read what stands between dollar signs as mathematics."""
    return text.replace("$", r"\$")


def to_svg(figure: Figure) -> str:
    """The figure as an SVG document, the same for the same figure."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=160, metadata={"Date": None})
    return buffer.getvalue()
