"""The guard's figures, from scored rows: thresholds are chosen on validation rows only.

Run: python export/recipes/embedded_guard/metrics.py --validation V.jsonl --test T.jsonl --multilabel M.jsonl
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
import numpy as np
import numpy.typing as npt
from data import POLICY
from score import Score
from sklearn.metrics import f1_score, roc_auc_score
from splits import HELD_OUT_SOURCES

from verdictree import policy as policies

Estimator = Literal["marginal", "joint", "conditional"]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_ESTIMATORS: tuple[Estimator, ...] = ("marginal", "joint", "conditional")
_THRESHOLDS = np.linspace(0.01, 0.95, 95)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Scores:
    """Scored rows as arrays.

    truth  (rows, categories) the category is among the row's labels
    known  (rows, categories) the row says whether it holds the category: all of a safe row's, else only its labels'
    """

    def __init__(self, rows: Sequence[Score], codes: Sequence[str]) -> None:
        self.rows = rows
        self.sources = np.array([row.source for row in rows])
        self.truth: Bools = np.array([[code in row.labels for code in codes] for row in rows])
        self.unsafe: Bools = self.truth.any(axis=1)
        self.known: Bools = self.truth | ~self.unsafe[:, None]
        self.p_unsafe = np.array([row.p_unsafe for row in rows])

    def estimates(self, estimator: Estimator) -> Floats:
        """(rows, categories)"""
        return np.array([getattr(row, estimator) for row in self.rows])

    def judged(self, strict: bool) -> Bools:
        """(rows, categories) what counts: with `strict` an unlabelled category of an unsafe row is a negative."""
        return np.ones_like(self.known) if strict else self.known


def read_scores(path: Path, codes: Sequence[str]) -> Scores:
    """Read what `score.py` wrote."""
    return Scores([msgspec.json.decode(line, type=Score) for line in path.read_bytes().splitlines()], codes)


def best_threshold(scores: Floats, truth: Bools) -> float:
    """The threshold with the highest F1."""
    return float(max(_THRESHOLDS, key=lambda threshold: _f1(scores >= threshold, truth)))


def f1_figures(validation: Scores, test: Scores, strict: bool, estimator: Estimator = "marginal") -> dict[str, Any]:
    """Micro- and macro-F1 over the categories at one threshold for all, and at one for each category."""
    chosen, seen = validation.judged(strict), test.judged(strict)
    tuned, scored = validation.estimates(estimator), test.estimates(estimator)
    columns = range(tuned.shape[1])
    common = best_threshold(tuned[chosen], validation.truth[chosen])
    own = np.array([best_threshold(tuned[chosen[:, c], c], validation.truth[chosen[:, c], c]) for c in columns])
    figures: dict[str, Any] = {"threshold": round(common, 2)}
    for name, thresholds in (("one threshold", np.full(len(own), common)), ("threshold per category", own)):
        flags = scored >= thresholds
        per_category = [_f1(flags[seen[:, c], c], test.truth[seen[:, c], c]) for c in columns]
        figures[name] = {
            "micro_f1": round(_f1(flags[seen], test.truth[seen]), 4),
            "macro_f1": round(float(np.mean(per_category)), 4),
            "per_category": [round(f1, 3) for f1 in per_category],
        }
    return figures


def unsafe_figures(test: Scores, threshold: float) -> dict[str, Any]:
    """How well P(unsafe) tells unsafe rows from safe ones: AUROC, and each source's share of flagged rows."""
    held_out = np.isin(test.sources, list(HELD_OUT_SOURCES))
    figures: dict[str, Any] = {}
    for name, part in (("all", held_out | True), ("held-out sources", held_out), ("training sources", ~held_out)):
        auroc = roc_auc_score(test.unsafe[part], test.p_unsafe[part])
        counts = {"unsafe": int(test.unsafe[part].sum()), "safe": int((~test.unsafe[part]).sum())}
        figures[name] = {"auroc": round(float(auroc), 4), **counts}
    flagged = {
        source: {"flagged": round(float((test.p_unsafe[own] >= threshold).mean()), 4), "n": int(own.sum())}
        for source, own in ((source, test.sources == source) for source in sorted(set(test.sources)))
    }
    return {"auroc": figures, "threshold": round(threshold, 2), "sources": flagged}


def multilabel_figures(validation: Scores, rows: Scores) -> dict[str, Any]:
    """Composed rows: a category that none of a row's parts was written for counts as a negative."""
    figures: dict[str, Any] = {"n": len(rows.rows)}
    for estimator in _ESTIMATORS:
        scores = rows.estimates(estimator)
        tuned = validation.estimates(estimator)[validation.known]
        threshold = best_threshold(tuned, validation.truth[validation.known])
        figures[estimator] = {
            "micro_auc": round(float(roc_auc_score(rows.truth.ravel(), scores.ravel())), 4),
            "micro_f1": round(_f1(scores.ravel() >= threshold, rows.truth.ravel()), 4),
        }
    return figures


def _f1(flags: Bools, truth: Bools) -> float:
    return float(f1_score(truth, flags, zero_division=0.0))


@click.command()
@click.option("--validation", type=_FILE, required=True)
@click.option("--test", type=_FILE, required=True)
@click.option("--multilabel", type=_FILE, required=True)
def main(validation: Path, test: Path, multilabel: Path) -> None:
    """Print the figures of scored validation, test and test_multilabel rows as one JSON document."""
    codes = policies.load(POLICY).codes
    tuned, scored, composed = (read_scores(path, codes) for path in (validation, test, multilabel))
    figures = {
        "unsafe": unsafe_figures(scored, best_threshold(tuned.p_unsafe, tuned.unsafe)),
        "categories, unlabelled masked": f1_figures(tuned, scored, strict=False),
        "categories, unlabelled negative": f1_figures(tuned, scored, strict=True),
        "composed": multilabel_figures(tuned, composed),
    }
    click.echo(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
