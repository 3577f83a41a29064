"""From scores to flags: at the paper's threshold, and at thresholds that were tuned on other rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from verdictree_evaluation.data.arrays import Array, Bools, Scored
from verdictree_evaluation.metrics.baselines import BASELINES
from verdictree_evaluation.metrics.thresholds import MAX_F1, PAPER_THRESHOLD, choose

FIXED, TUNED, PER_CATEGORY = "fixed", "tuned", "per category"
RULES = (FIXED, TUNED, PER_CATEGORY)
NUM_FOLDS = 5


@dataclass(frozen=True)
class Method:
    """One row of the paper's table: scores (n, c), None where the method names labels only, and flags by rule."""

    name: str
    scores: Array | None
    flags: dict[str, Bools] = field(default_factory=dict)


# Learns on the first rows and flags the second, (rows of the second, c).
Flagger = Callable[[Scored, Scored], Bools]


def methods(scored: Scored, tune: Scored | None, seed: int = 0) -> list[Method]:
    """All methods on `scored`; thresholds come from `tune`, or from the other folds where it is None.

    fixed         the paper's 0.2
    tuned         one threshold for all categories: the highest micro-F1
    per category  one for each: the highest F1, and `tuned` where it has no positives or no negatives;
                  of the flags that the release serves, the thresholds of its own calibration
    """
    found = [Method("greedy", None, {FIXED: scored.greedy, TUNED: scored.greedy, PER_CATEGORY: scored.greedy})]
    if scored.label_logits is not None and (tune is None or tune.label_logits is not None):
        for name, uncertainty in BASELINES.items():
            found.append(Method(name, None, {TUNED: _tuned(_baseline(uncertainty), scored, tune, seed)}))
    for name, values in scored.estimates.items():
        found.append(_threshold_method(name, values, lambda one, name=name: one.estimates[name], scored, tune, seed))  # type: ignore[misc]
    if scored.calibrated is not None:
        found.append(_threshold_method("calibrated marginal", scored.calibrated, _calibrated, scored, tune, seed))
    if scored.served_flags is not None:
        found.append(Method("served flags", None, {PER_CATEGORY: scored.served_flags}))
    return found


def _threshold_method(
    name: str, scores: Array, read: Callable[[Scored], Array], scored: Scored, tune: Scored | None, seed: int
) -> Method:
    def one_for_all(learn: Scored, judge: Scored) -> Bools:
        return np.asarray(read(judge) >= common_threshold(read(learn), learn))

    def one_for_each(learn: Scored, judge: Scored) -> Bools:
        return np.asarray(read(judge) >= category_thresholds(read(learn), learn))

    return Method(
        name,
        scores,
        {
            FIXED: np.asarray(scores >= PAPER_THRESHOLD),
            TUNED: _tuned(one_for_all, scored, tune, seed),
            PER_CATEGORY: _tuned(one_for_each, scored, tune, seed),
        },
    )


def unsafe_flags(scored: Scored, tune: Scored | None, seed: int = 0) -> Bools:
    """P(unsafe) at the threshold with the highest F1, chosen on `tune` or on the other folds; (n,)."""

    def flag(learn: Scored, judge: Scored) -> Bools:
        return np.asarray(judge.p_unsafe >= choose(MAX_F1, learn.p_unsafe, learn.unsafe)[0])

    return _tuned(lambda learn, judge: np.repeat(flag(learn, judge)[:, None], len(judge.codes), 1), scored, tune, seed)[
        :, 0
    ]


def common_threshold(scores: Array, rows: Scored) -> float:
    """The one threshold with the highest micro-F1 over the known entries of `rows`; scores (n, c)."""
    return choose(MAX_F1, scores[rows.known], rows.truth[rows.known])[0]


def category_thresholds(scores: Array, rows: Scored) -> Array:
    """The threshold with the highest F1 of each category, (c,)."""
    common = common_threshold(scores, rows)
    thresholds = np.full(scores.shape[1], common)
    for column in range(scores.shape[1]):
        known = rows.known[:, column]
        truth = rows.truth[known, column]
        if truth.any() and not truth.all():
            thresholds[column] = choose(MAX_F1, scores[known, column], truth)[0]
    return thresholds


def _tuned(flagger: Flagger, scored: Scored, tune: Scored | None, seed: int) -> Bools:
    if tune is not None:
        return flagger(tune, scored)
    flags = np.zeros_like(scored.truth)
    folds = scored.folds(NUM_FOLDS, seed)
    for fold in range(NUM_FOLDS):
        if (folds == fold).any():
            flags[folds == fold] = flagger(scored.select(folds != fold), scored.select(folds == fold))
    return flags


def _calibrated(scored: Scored) -> Array:
    if scored.calibrated is None:
        raise ValueError("expected calibrated rows, got raw ones")
    return scored.calibrated


def _baseline(uncertainty: Callable[[Array], Array]) -> Flagger:
    def flag(learn: Scored, judge: Scored) -> Bools:
        side, threshold = _second_label_rule(uncertainty, learn)
        first, second = _top_two(judge)
        both = side * uncertainty(_logits(judge)) >= threshold
        return np.asarray(first | (second & both[:, None]))

    return flag


def _second_label_rule(uncertainty: Callable[[Array], Array], rows: Scored) -> tuple[int, float]:
    """The side (1: uncertain rows, −1: certain ones) and the threshold for naming two labels: the highest micro-F1."""
    first, second = _top_two(rows)
    positives = int(rows.truth[rows.known].sum())
    best = (-1.0, 1, np.inf)
    for side in (-1, 1):
        values = side * uncertainty(_logits(rows))
        order = np.argsort(-values, kind="stable")
        named = (second & rows.known)[order]
        right = (named & rows.truth[order]).sum(axis=1).cumsum() + int((first & rows.known & rows.truth).sum())
        total = named.sum(axis=1).cumsum() + int((first & rows.known).sum())
        f1 = 2 * right / np.maximum(total + positives, 1)
        last_of_ties = np.append(np.diff(values[order]) != 0, True)
        f1 = np.where(last_of_ties, f1, -1.0)
        at = int(np.argmax(f1)) if len(f1) else 0
        if len(f1) and f1[at] > best[0]:
            best = (float(f1[at]), side, float(values[order][at]))
    return best[1], best[2]


def _top_two(scored: Scored) -> tuple[Bools, Bools]:
    """(n, c) each: the label with the largest logit, and with the second largest, of the rows found unsafe.

    A row without logits, whose P(unsafe) is next to nothing, names none.
    """
    logits = _logits(scored)
    order = np.argsort(-logits, axis=1, kind="stable")
    first, second = np.zeros_like(scored.truth), np.zeros_like(scored.truth)
    rows = np.flatnonzero(scored.greedy_unsafe & logits.any(axis=1))
    first[rows, order[rows, 0]] = True
    if logits.shape[1] > 1:
        second[rows, order[rows, 1]] = True
    return first, second


def _logits(scored: Scored) -> Array:
    if scored.label_logits is None:
        raise ValueError("expected rows with label logits, got rows of a server")
    return scored.label_logits
