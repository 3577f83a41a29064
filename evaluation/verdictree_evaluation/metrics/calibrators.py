"""Which calibrator describes a score best: chosen by cross-validated log loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from verdictree.releases.calibration import Calibrator, Method, log_odds
from verdictree_evaluation.data.arrays import Array, Bools
from verdictree_evaluation.defaults import MIN_POSITIVES

FOLDS = 5


@dataclass(frozen=True)
class Fit:
    """The chosen calibrator, each candidate's cross-validated log loss, and why nothing was fitted, or ""."""

    calibrator: Calibrator
    losses: dict[Method, float]
    note: str = ""


def fit(scores: Array, truth: Bools, *, min_positives: int = MIN_POSITIVES, seed: int = 0) -> Fit:
    """Choose a calibrator of `scores` (n,) for `truth` (n,) among none, temperature, Platt and isotonic.

    Each candidate is fitted on four fifths and judged on the last, five times; the least mean log loss wins, the
    simpler one on a tie. With fewer than `min_positives` positives or negatives the scores stay as they are.
    """
    counts = int(truth.sum()), int((~truth).sum())
    least = max(min_positives, FOLDS)
    if min(counts) < least:
        what = "positives" if counts[0] < least else "negatives"
        return Fit(Calibrator(), {}, f"uncalibrated: {min(counts)} {what}, at least {least} are needed")
    losses: dict[Method, float] = {}
    for method, fitted in _CANDIDATES.items():
        loss = _cross_validated(fitted, scores, truth, seed)
        if loss is not None:
            losses[method] = loss
    ranked = sorted(losses, key=lambda method: round(losses[method], 9))
    for method in ranked:
        calibrator = _CANDIDATES[method](scores, truth)
        if calibrator is not None:
            return Fit(calibrator, losses)
    return Fit(Calibrator(), losses)


def no_calibrator(scores: Array, truth: Bools) -> Calibrator | None:
    """The scores as they are."""
    return Calibrator()


def temperature(scores: Array, truth: Bools) -> Calibrator | None:
    """σ(z / T); None where no T > 0 fits."""
    model = LogisticRegression(C=_FREE, fit_intercept=False, max_iter=1000)
    slope = _slope(model, scores, truth)
    return Calibrator("temperature", slope=slope) if slope > 0 else None


def platt(scores: Array, truth: Bools) -> Calibrator | None:
    """σ(a · z + b); None where a > 0 does not fit."""
    model = LogisticRegression(C=_FREE, max_iter=1000)
    slope = _slope(model, scores, truth)
    return Calibrator("platt", slope=slope, intercept=float(model.intercept_[0])) if slope > 0 else None


def isotonic(scores: Array, truth: Bools) -> Calibrator | None:
    """Steps that never fall, kept away from 0 and 1 by 1 / (n + 2)."""
    margin = 1.0 / (len(scores) + 2)
    model = IsotonicRegression(y_min=margin, y_max=1.0 - margin, out_of_bounds="clip").fit(scores, truth)
    return Calibrator("isotonic", x=tuple(model.X_thresholds_.tolist()), y=tuple(model.y_thresholds_.tolist()))


def _slope(model: LogisticRegression, scores: Array, truth: Bools) -> float:
    # Platt's smoothed targets keep the fit finite where the scores separate the classes: each row stands twice.
    positives, negatives = int(truth.sum()), int((~truth).sum())
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    z = np.tile(log_odds(scores), 2)[:, None]
    answers = np.repeat([1, 0], len(scores))
    model.fit(z, answers, sample_weight=np.concatenate([target, 1 - target]))
    return float(model.coef_[0, 0])


def _cross_validated(
    fitted: Callable[[Array, Bools], Calibrator | None], scores: Array, truth: Bools, seed: int
) -> float | None:
    out_of_fold = np.empty_like(scores)
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(scores, truth):
        calibrator = fitted(scores[train], truth[train])
        if calibrator is None:
            return None
        out_of_fold[test] = calibrator(scores[test])
    return float(log_loss(truth, np.clip(out_of_fold, 1e-9, 1 - 1e-9), labels=[False, True]))


_FREE = 1e6  # the inverse strength of the penalty: practically none
_CANDIDATES: dict[Method, Callable[[Array, Bools], Calibrator | None]] = {
    "none": no_calibrator,
    "temperature": temperature,
    "platt": platt,
    "isotonic": isotonic,
}
