"""The report's figures, each as an SVG document."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from sklearn.metrics import precision_recall_curve

from verdictree_evaluation.data.arrays import Array, Bools, Scored
from verdictree_evaluation.metrics.metrics import NUM_BINS, bin_of
from verdictree_evaluation.reports.plot_style import BLUE, GREEN, GREY, ORANGE, STYLE, plain, small_multiples, to_svg


def reliability(scored: Scored) -> str:
    """How often what was given probability p is true: P(unsafe), and all categories' known entries together."""
    known = scored.known
    marginal, raised = scored.estimates["marginal"], scored.calibrated
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axes = figure.subplots(1, 2)
        _reliability(axes[0], "P(unsafe)", scored.p_unsafe, scored.p_unsafe_calibrated, scored.unsafe)
        pooled = None if raised is None else raised[known]
        _reliability(axes[1], "all categories", marginal[known], pooled, scored.truth[known])
        axes[0].legend(loc="upper left")
        return to_svg(figure)


def category_reliability(scored: Scored) -> str:
    """The reliability diagram of each category."""

    def draw(axes: Any, column: int) -> None:
        known = scored.known[:, column]
        raised = None if scored.calibrated is None else scored.calibrated[known, column]
        marginal = scored.estimates["marginal"][known, column]
        _reliability(axes, scored.codes[column], marginal, raised, scored.truth[known, column], label=False)

    return small_multiples(scored, draw, "predicted", "observed")


def precision_recall(scored: Scored) -> str:
    """Precision over recall of each category: the three estimates over known entries."""
    styles = {"marginal": (BLUE, "-"), "joint": (ORANGE, "-"), "conditional": (GREEN, (0, (2, 2)))}

    def draw(axes: Any, column: int) -> None:
        known = scored.known[:, column]
        truth = scored.truth[known, column]
        axes.set_title(f"{plain(scored.codes[column])}   {int(truth.sum())} of {len(truth)}")
        if truth.any() and not truth.all():
            for name, (colour, dashes) in styles.items():
                precision, recall, _ = precision_recall_curve(truth, scored.estimates[name][known, column])
                axes.plot(recall, precision, color=colour, ls=dashes, lw=1.4, label=name, drawstyle="steps-post")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.05))

    return small_multiples(scored, draw, "recall", "precision", legend=True)


def score_histograms(scored: Scored) -> str:
    """Where P(unsafe) lies for safe and for unsafe rows."""
    panels = [("P(unsafe)", scored.p_unsafe)]
    if scored.p_unsafe_calibrated is not None:
        panels.append(("P(unsafe), calibrated", scored.p_unsafe_calibrated))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        for axes, (title, scores) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            bins = np.linspace(0, 1, 26).tolist()
            axes.hist(scores[~scored.unsafe], bins, color=BLUE, alpha=0.6, label=f"safe ({(~scored.unsafe).sum()})")
            axes.hist(scores[scored.unsafe], bins, color=ORANGE, alpha=0.6, label=f"unsafe ({scored.unsafe.sum()})")
            axes.set(title=title, yscale="symlog", xlim=(0, 1), ylabel="rows (log scale)")
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.legend(loc="upper center")
        return to_svg(figure)


def confusion(scored: Scored, flags: Bools) -> str:
    """Which categories get the probability where a labelled one is missed: mean marginals of those rows."""
    marginal = scored.estimates["marginal"]
    missed = scored.truth & ~flags
    rows = [column for column in range(len(scored.codes)) if scored.truth[:, column].any()]
    table = np.full((len(rows), len(scored.codes) + 1), np.nan)
    for line, column in enumerate(rows):
        own = missed[:, column]
        if own.any():
            table[line, :-1], table[line, -1] = marginal[own].mean(axis=0), scored.p_safe[own].mean()
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(9, 1.3 + 0.34 * len(rows)), layout="constrained")
        axes = figure.subplots()
        most = max(0.01, float(np.nanmax(table, initial=0.0)))
        axes.imshow(np.nan_to_num(table), cmap="Blues", vmin=0, vmax=most, aspect="auto")
        names = [*map(plain, scored.codes), "safe"]
        axes.set_xticks(range(len(names)), names)
        counts = [f"{plain(scored.codes[c])}  {missed[:, c].sum()}/{scored.truth[:, c].sum()}" for c in rows]
        axes.set_yticks(range(len(rows)), counts)
        axes.set(xlabel="mean probability given to", ylabel="labelled  (missed / rows)")
        for line in np.flatnonzero(np.isnan(table[:, 0])):
            axes.text(len(names) / 2 - 0.5, line, "none missed", ha="center", va="center", fontsize=7, color=GREY)
        for line, column in np.argwhere(np.isfinite(table)):
            dark = table[line, column] > 0.6 * most
            colour = "white" if dark else "#20252b"
            axes.text(column, line, f"{table[line, column]:.2f}", ha="center", va="center", fontsize=7, color=colour)
        return to_svg(figure)


def estimate_scatter(scored: Scored) -> str:
    """Marginal against joint and conditional, one point for each row and category."""
    marginal = scored.estimates["marginal"]
    kinds = (
        ("unlabelled", ~scored.known, GREY),
        ("absent", scored.known & ~scored.truth, BLUE),
        ("present", scored.known & scored.truth, ORANGE),
    )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        for axes, name in zip(figure.subplots(1, 2), ("joint", "conditional"), strict=True):
            axes.plot([0, 1], [0, 1], color=GREY, lw=0.8)
            for label, chosen, colour in kinds:
                points = scored.estimates[name][chosen], marginal[chosen]
                axes.scatter(*points, s=9, alpha=0.55, lw=0, color=colour, label=label, rasterized=True)
            axes.set(xlabel=name, ylabel="marginal", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=1.8)
        return to_svg(figure)


def _reliability(axes: Any, title: str, raw: Array, raised: Array | None, truth: Bools, label: bool = True) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.8)
    for name, scores, colour in (("raw", raw, BLUE), ("calibrated", raised, ORANGE)):
        if scores is None or not len(scores):
            continue
        bins = bin_of(scores)
        counts = np.bincount(bins, minlength=NUM_BINS)
        held = np.flatnonzero(counts)
        predicted = np.bincount(bins, weights=scores, minlength=NUM_BINS)[held] / counts[held]
        observed = np.bincount(bins, weights=truth, minlength=NUM_BINS)[held] / counts[held]
        axes.plot(predicted, observed, color=colour, lw=1.0, alpha=0.6, label=name)
        size = np.sqrt(counts[held] / counts.max())
        axes.scatter(predicted, observed, s=4 + 50 * size, color=colour, alpha=0.75, lw=0)
    axes.set(title=plain(title), xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
    if label:
        axes.set(xlabel="predicted probability", ylabel="observed frequency")
