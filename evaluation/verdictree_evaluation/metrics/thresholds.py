"""From which score on a category is flagged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_curve, roc_curve

from verdictree.releases.decision import DEFAULT_THRESHOLD
from verdictree_evaluation.data.arrays import Array, Bools
from verdictree_evaluation.errors import EvaluationError

PAPER_THRESHOLD = DEFAULT_THRESHOLD
Kind = Literal["max-f1", "precision", "recall", "fpr", "fixed"]


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen; `target` is unused for max-f1."""

    kind: Kind = "max-f1"
    target: float = 0.0

    def __str__(self) -> str:
        return self.kind if self.kind == "max-f1" else f"{self.kind}={self.target:g}"


MAX_F1 = Rule()


def parse_rule(text: str) -> tuple[str | None, Rule]:
    """Read `[CODE:]RULE`, RULE being max-f1, fixed[=0.2], precision=P, recall=R or fpr=F; EvaluationError otherwise."""
    match = _RULE.fullmatch(text)
    kind, value = (match["kind"], match["value"]) if match else ("", None)
    if kind == "fixed" and value is None:
        value = str(PAPER_THRESHOLD)
    if not match or (kind == "max-f1") != (value is None) or not 0 <= float(value or 0) <= 1:
        raise EvaluationError(
            f"expected max-f1, fixed=0.2, precision=0.9, recall=0.9 or fpr=0.05, after CODE: for one category, "
            f"got {text!r}"
        )
    kinds: dict[str, Kind] = {name: name for name in ("max-f1", "precision", "recall", "fpr", "fixed")}
    return match["code"], Rule(kinds[kind], float(value or 0))


_RULE = re.compile(r"(?:(?P<code>[^:=\s]+):)?(?P<kind>max-f1|precision|recall|fpr|fixed)(?:=(?P<value>[0-9.]+))?")


def choose(rule: Rule, scores: Array, truth: Bools) -> tuple[float, str]:
    """The threshold t of `scores >= t` (both (n,)) that follows the rule, and a note where it cannot.

    max-f1     the highest F1, short of flagging everything, which wins where scores are weak and helps nobody
    precision  the lowest t whose precision reaches the target, so the highest recall at it
    recall     the highest t whose recall reaches the target
    fpr        the lowest t whose false-positive rate stays within the target

    Without positives or negatives there is nothing to choose by: the paper's 0.2.
    """
    if rule.kind == "fixed":
        return rule.target, ""
    if truth.all() or not truth.any():
        return PAPER_THRESHOLD, f"{rule} needs positives and negatives; {PAPER_THRESHOLD} taken"
    if rule.kind == "fpr":
        return _within_fpr(rule.target, scores, truth)
    precision, recall, thresholds = precision_recall_curve(truth, scores)
    precision, recall = precision[:-1], recall[:-1]
    if rule.kind == "recall":
        return float(thresholds[np.flatnonzero(recall >= rule.target)[-1]]), ""
    if rule.kind == "precision":
        return _at_precision(rule.target, precision, thresholds)
    if len(thresholds) == 1:
        return _above(scores.max()), "all scores are the same; nothing is flagged"
    f1 = (2 * precision * recall / np.maximum(precision + recall, 1e-12))[1:]
    return float(thresholds[1 + int(np.argmax(f1))]), ""


def _at_precision(target: float, precision: Array, thresholds: Array) -> tuple[float, str]:
    reached = np.flatnonzero(precision >= target)
    if reached.size:
        return float(thresholds[reached[0]]), ""
    best = int(np.argmax(precision))
    return float(thresholds[best]), f"precision {target:g} is out of reach; the highest is {precision[best]:.3f}"


def _within_fpr(target: float, scores: Array, truth: Bools) -> tuple[float, str]:
    fpr, _, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    last = int(np.flatnonzero(fpr <= target)[-1])
    if last > 0:
        return float(thresholds[last]), ""
    return _above(scores.max()), f"fpr {target:g} is out of reach; nothing is flagged up to the highest score"


def _above(score: npt.NDArray[np.float64] | np.float64) -> float:
    return float(np.nextafter(score, np.inf))
