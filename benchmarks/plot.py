"""Latency against throughput, all systems in one diagram."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.results import Figure
from verdictree_evaluation.reports.plot_style import BLUE, GREEN, GREY, ORANGE, STYLE

_OURS = (BLUE, "#7fa9d6")
_OTHERS = (ORANGE, GREEN, GREY, "#8a5aa8", "#b04a4a", "#3a3a3a")
_MARKERS = "osD^vP*X"


def latency_against_throughput(figures: Sequence[Figure], mix: str, title: str, path: Path) -> None:
    """Draw the median latency of every system and load of one mix into the PNG file `path`."""
    systems = list(dict.fromkeys(figure.system for figure in figures if figure.mix == mix))
    ours, others, markers = iter(_OURS), cycle(_OTHERS), cycle(_MARKERS)
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(8.5, 4.2), layout="constrained", dpi=160)
        axes = canvas.subplots()
        for system in systems:
            colour = next(ours if system.startswith("Verdictree") else others, GREY)
            points = [figure for figure in figures if (figure.system, figure.mix) == (system, mix)]
            closed = [figure for figure in points if not figure.load.startswith("Poisson")]
            style = {"color": colour, "marker": next(markers), "markersize": 5}
            _line(axes, closed, label=system, **style)
            _line(axes, [figure for figure in points if figure not in closed], linestyle=":", alpha=0.7, **style)
        axes.set(xscale="log", yscale="log", xlabel="requests/s", ylabel="median latency, ms", title=title)
        for axis in (axes.xaxis, axes.yaxis):  # 1, 2, 5, 10, …, not powers of ten
            axis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter=NullFormatter())
        canvas.legend(loc="outside right center", fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path)


def _line(axes: object, figures: Sequence[Figure], **style: object) -> None:
    rates, latencies = [figure.run.requests_per_s for figure in figures], [figure.run.p50_ms for figure in figures]
    axes.plot(rates, latencies, **style)  # type: ignore[attr-defined]
