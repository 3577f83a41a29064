"""Bootstrap intervals: every figure again on resampled rows, fast enough for a thousand resamples.

A resample of n rows is a weight for each row, how often it was drawn; all figures here are weighted forms of those in
`metrics` (equal to scikit-learn's with `sample_weight`) over scores that are sorted once. One resample serves all
methods, so differences between methods are paired. Thresholds are part of a method and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from verdictree_evaluation.data.arrays import Array, Bools, Scored
from verdictree_evaluation.metrics.decisions import RULES, Method
from verdictree_evaluation.metrics.metrics import NUM_BINS, RECALL, bin_of, judged_categories

Interval = tuple[float, float]
Weights = npt.NDArray[np.float64]
Statistic = Callable[[Weights], float]


def resamples(num_rows: int, count: int, seed: int) -> Array:
    """(count, n) weights: how often each row was drawn."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_rows, np.full(num_rows, 1.0 / max(num_rows, 1)), size=count).astype(np.float64)


def distributions(statistics: dict[str, Statistic], weights: Array) -> dict[str, Array]:
    """Each figure on each resample, (count,); nan where a resample does not define it."""
    found = {name: np.empty(len(weights)) for name in statistics}
    for index, row_weights in enumerate(weights):
        for name, statistic in statistics.items():
            found[name][index] = statistic(row_weights)
    return found


def interval(values: Array) -> Interval | None:
    """The central 95% of the resamples; None where fewer than nine in ten define the figure."""
    defined = values[np.isfinite(values)]
    if len(defined) < 0.9 * max(len(values), 1):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def statistics(scored: Scored, method: Method) -> dict[str, Statistic]:
    """The weighted form of every figure in `metrics.figures`, by the same names."""
    found: dict[str, Statistic] = {}
    columns = judged_categories(scored)
    for rule in RULES:
        flags = method.flags.get(rule)
        if flags is not None:
            found[f"micro-F1 @ {rule}"] = _micro_f1(scored, flags)
            found[f"Hamming loss @ {rule}"] = _mean(scored, (flags != scored.truth).astype(np.float64))
            found[f"macro-F1 @ {rule}"] = _macro_f1(scored, flags, columns)
    if method.scores is not None:
        entries = np.nonzero(scored.known)
        ranking = Ranking(method.scores[scored.known], scored.truth[scored.known], entries[0])
        found["micro ROC-AUC"] = ranking.roc_auc
        found["average precision"] = ranking.average_precision
        found["Brier"] = _mean(scored, (method.scores - scored.truth) ** 2)
        found["ECE"] = _mean_ece(scored, method.scores, columns)
        found["FPR @ recall 0.9"] = Ranking(method.scores.max(axis=1), scored.unsafe).fpr_at_recall
    return found


def unsafe_statistics(scored: Scored, p_unsafe: Array) -> dict[str, Statistic]:
    """The weighted form of every figure in `metrics.unsafe_figures`, by the same names."""
    ranking = Ranking(p_unsafe, scored.unsafe)
    squares = (p_unsafe - scored.unsafe) ** 2
    bins, gaps = bin_of(p_unsafe), p_unsafe - scored.unsafe
    return {
        "ROC-AUC": ranking.roc_auc,
        "average precision": ranking.average_precision,
        "Brier": lambda w: float(w @ squares / w.sum()),
        "ECE": lambda w: float(np.abs(np.bincount(bins, weights=w * gaps, minlength=NUM_BINS)).sum() / w.sum()),
        "FPR @ recall 0.9": ranking.fpr_at_recall,
    }


class Ranking:
    """Entries sorted once by falling score: `scores` and `truth` (entries,), `rows` the row whose weight each has."""

    def __init__(self, scores: Array, truth: Bools, rows: npt.NDArray[np.intp] | None = None) -> None:
        order = np.argsort(-scores, kind="stable")
        self._truth = truth[order].astype(np.float64)
        self._rows = order if rows is None else rows[order]
        self._ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # ties share one point

    def _counts(self, weights: Weights) -> tuple[Array, Array]:
        """Positives and negatives above each distinct score, from 0 up."""
        w = weights[self._rows]
        positives = (w * self._truth).cumsum()[self._ends]
        everything = w.cumsum()[self._ends]
        return np.append(0.0, positives), np.append(0.0, everything - positives)

    def roc_auc(self, weights: Weights) -> float:
        """The area under the ROC curve."""
        positives, negatives = self._counts(weights)
        if positives[-1] <= 0 or negatives[-1] <= 0:
            return float("nan")
        area = np.diff(negatives) @ (positives[1:] + positives[:-1]) / 2
        return float(area / (positives[-1] * negatives[-1]))

    def average_precision(self, weights: Weights) -> float:
        """Σ (recall_i − recall_{i−1}) · precision_i."""
        positives, negatives = self._counts(weights)
        if positives[-1] <= 0 or negatives[-1] <= 0:
            return float("nan")
        precision = positives[1:] / np.maximum(positives[1:] + negatives[1:], 1e-12)
        return float(np.diff(positives) @ precision / positives[-1])

    def fpr_at_recall(self, weights: Weights) -> float:
        """The false-positive rate at the highest threshold whose recall reaches 0.9."""
        positives, negatives = self._counts(weights)
        if positives[-1] <= 0 or negatives[-1] <= 0:
            return float("nan")
        first = int(np.argmax(positives / positives[-1] >= RECALL - 1e-12))
        return float(negatives[first] / negatives[-1])


def _micro_f1(scored: Scored, flags: Bools) -> Statistic:
    right = (flags & scored.truth & scored.known).sum(axis=1)
    total = ((flags & scored.known).sum(axis=1) + (scored.truth & scored.known).sum(axis=1)).astype(np.float64)
    return lambda w: float(2 * (w @ right) / max(w @ total, 1e-12))


def _macro_f1(scored: Scored, flags: Bools, columns: list[int]) -> Statistic:
    right = (flags & scored.truth & scored.known)[:, columns].astype(np.float64)
    total = (flags & scored.known)[:, columns].astype(np.float64) + (scored.truth & scored.known)[:, columns]

    def statistic(w: Weights) -> float:
        return float(np.mean(2 * (w @ right) / np.maximum(w @ total, 1e-12))) if columns else float("nan")

    return statistic


def _mean(scored: Scored, values: Array) -> Statistic:
    sums = np.where(scored.known, values, 0.0).sum(axis=1)
    counts = scored.known.sum(axis=1).astype(np.float64)
    return lambda w: float((w @ sums) / max(w @ counts, 1e-12))


def _mean_ece(scored: Scored, scores: Array, columns: list[int]) -> Statistic:
    rows, places = np.nonzero(scored.known[:, columns])
    values = scores[:, columns][rows, places]
    gaps = values - scored.truth[:, columns][rows, places]
    cells = places * NUM_BINS + bin_of(values)
    size = len(columns)

    def statistic(w: Weights) -> float:
        if not size:
            return float("nan")
        sums = np.bincount(cells, weights=w[rows] * gaps, minlength=size * NUM_BINS).reshape(size, NUM_BINS)
        totals = np.bincount(places, weights=w[rows], minlength=size)
        return float(np.mean(np.abs(sums).sum(axis=1) / np.maximum(totals, 1e-12)))

    return statistic
