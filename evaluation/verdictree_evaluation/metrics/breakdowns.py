"""What the paper's table does not show: P(unsafe), each category and each source by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from verdictree_evaluation.data.arrays import Bools, Scored
from verdictree_evaluation.metrics import metrics, resampling
from verdictree_evaluation.metrics.decisions import PER_CATEGORY, Method
from verdictree_evaluation.metrics.evaluate import REFERENCE, with_intervals


def measure_unsafe(scored: Scored, num_resamples: int, seed: int) -> list[dict[str, Any]]:
    """P(unsafe), raw and calibrated: its figures with 95% intervals."""
    weights = resampling.resamples(len(scored), num_resamples, seed)
    found = []
    for name, p_unsafe in (("raw", scored.p_unsafe), ("calibrated", scored.p_unsafe_calibrated)):
        if p_unsafe is not None:
            spread = resampling.distributions(resampling.unsafe_statistics(scored, p_unsafe), weights)
            found.append({"score": name, "figures": with_intervals(metrics.unsafe_figures(scored, p_unsafe), spread)})
    return found


def measure_categories(scored: Scored, method: Method) -> list[dict[str, Any]]:
    """One line a category: its counts, and the marginal's figures over the rows that know it.

    `in top k` is the share of its rows where it is among the k most probable categories, k being the row's number of
    labels: 1 for a row of one hazard.
    """
    found = []
    rank = (-scored.estimates[REFERENCE]).argsort(axis=1, kind="stable").argsort(axis=1)
    in_top = rank < scored.truth.sum(axis=1, keepdims=True)
    flags = method.flags[PER_CATEGORY]
    for column, code in enumerate(scored.codes):
        known = scored.known[:, column]
        source = replace(
            scored.select(known),
            truth=scored.truth[known][:, [column]],
            known=np.ones((int(known.sum()), 1), dtype=bool),
        )
        part = Method(code, scored.estimates[REFERENCE][known][:, [column]], {PER_CATEGORY: flags[known][:, [column]]})
        values = metrics.figures(source, part)
        if scored.calibrated is not None:
            values["ECE calibrated"] = metrics.ece(scored.calibrated[known, column], source.truth[:, 0])
        positives = int(source.truth.sum())
        values["in top k"] = float(in_top[scored.truth[:, column], column].mean()) if positives else None
        found.append({"code": code, "positives": positives, "negatives": len(source) - positives, "figures": values})
    return found


def measure_sources(scored: Scored, flags: Bools) -> list[dict[str, Any]]:
    """One line a source: where P(unsafe) lies on its rows, and how many of them are flagged by it, `flags` (n,).

    A source of one side alone has no ROC-AUC of its own: it is ranked against all rows of the other side.
    """
    sources = np.array([row.source for row in scored.rows])
    found = []
    for source in sorted(set(sources.tolist())):
        own = sources == source
        sides = set(scored.unsafe[own].tolist())
        ranked = own if len(sides) == 2 else own | (scored.unsafe != scored.unsafe[own][0])
        quartiles = np.percentile(scored.p_unsafe[own], [25, 50, 75]).tolist()
        found.append(
            {
                "source": source,
                "rows": int(own.sum()),
                "unsafe": int(scored.unsafe[own].sum()),
                "flagged": float(flags[own].mean()),
                "ROC-AUC": metrics.unsafe_figures(scored.select(ranked), scored.p_unsafe[ranked])["ROC-AUC"],
                "p_unsafe quartiles": quartiles,
                "mean unexplored": float(scored.unexplored[own].mean()),
            }
        )
    return found
