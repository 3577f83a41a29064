"""The figures of one method on one set of rows: scikit-learn's, over the entries whose truth is known.

An entry is a (row, category) pair. Micro figures pool all known entries; macro figures are means over the categories
that have a known positive and a known negative.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    hamming_loss,
    roc_auc_score,
    roc_curve,
)

from verdictree_evaluation.data.arrays import Array, Bools, Scored
from verdictree_evaluation.metrics.decisions import RULES, Method

RECALL = 0.9
NUM_BINS = 15

Figures = dict[str, float | None]


def judged_categories(scored: Scored) -> list[int]:
    """The categories with a known positive and a known negative."""
    positives = (scored.truth & scored.known).any(axis=0)
    negatives = (~scored.truth & scored.known).any(axis=0)
    return [int(column) for column in np.flatnonzero(positives & negatives)]


def figures(scored: Scored, method: Method) -> Figures:
    """Every figure that the method has; None where the rows do not define it (no positives, no negatives)."""
    figures: Figures = {}
    for rule in RULES:
        flags = method.flags.get(rule)
        if flags is not None:
            figures |= {f"{name} @ {rule}": value for name, value in _decision_figures(scored, flags).items()}
    if method.scores is not None:
        figures |= _score_figures(scored, method.scores)
    return figures


def _decision_figures(scored: Scored, flags: Bools) -> Figures:
    truth, named = scored.truth[scored.known], flags[scored.known]
    columns = judged_categories(scored)
    per_category = [
        f1_score(scored.truth[scored.known[:, c], c], flags[scored.known[:, c], c], zero_division=0.0) for c in columns
    ]
    return {
        "micro-F1": float(f1_score(truth, named, zero_division=0.0)) if truth.any() else None,
        "Hamming loss": float(hamming_loss(truth, named)) if truth.size else None,
        "macro-F1": float(np.mean(per_category)) if columns else None,
    }


def _score_figures(scored: Scored, scores: Array) -> Figures:
    truth, values = scored.truth[scored.known], scores[scored.known]
    both = bool(truth.any() and not truth.all())
    columns = judged_categories(scored)
    known = scored.known
    return {
        "micro ROC-AUC": float(roc_auc_score(truth, values)) if both else None,
        "average precision": float(average_precision_score(truth, values)) if both else None,
        "Brier": float(np.mean((values - truth) ** 2)) if truth.size else None,
        "ECE": float(np.mean([ece(scores[known[:, c], c], scored.truth[known[:, c], c]) for c in columns]))
        if columns
        else None,
        "FPR @ recall 0.9": fpr_at_recall(scores.max(axis=1), scored.unsafe),
    }


def ece(scores: Array, truth: Bools, num_bins: int = NUM_BINS) -> float:
    """Σ_b (n_b / n) |mean truth_b − mean score_b| over bins of equal width on [0, 1] (Guo et al. 2017); (n,) each."""
    bins = bin_of(scores, num_bins)
    gaps = np.bincount(bins, weights=scores - truth, minlength=num_bins)
    return float(np.abs(gaps).sum() / max(len(scores), 1))


def bin_of(scores: Array, num_bins: int = NUM_BINS) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """The equal-width bin of each score, any shape; the last one holds 1."""
    return np.clip((scores * num_bins).astype(np.intp), 0, num_bins - 1)


def fpr_at_recall(scores: Array, truth: Bools, recall: float = RECALL) -> float | None:
    """The false-positive rate at the highest threshold whose recall reaches `recall`; (n,) each."""
    if truth.all() or not truth.any():
        return None
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    return float(fpr[int(np.argmax(tpr >= recall - 1e-12))])


def unsafe_figures(scored: Scored, p_unsafe: Array) -> Figures:
    """How well P(unsafe), raw or calibrated, (n,), tells unsafe rows from safe ones."""
    truth = scored.unsafe
    both = bool(truth.any() and not truth.all())
    return {
        "ROC-AUC": float(roc_auc_score(truth, p_unsafe)) if both else None,
        "average precision": float(average_precision_score(truth, p_unsafe)) if both else None,
        "Brier": float(brier_score_loss(truth, np.clip(p_unsafe, 0.0, 1.0))) if both else None,
        "ECE": ece(p_unsafe, truth) if truth.size else None,
        "FPR @ recall 0.9": fpr_at_recall(p_unsafe, truth),
    }
