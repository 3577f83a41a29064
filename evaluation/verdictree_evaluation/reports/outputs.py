"""The evaluation's folder: metrics.json and report.html, beside the predictions that are there already."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from verdictree.releases.calibration import Calibration
from verdictree_evaluation.data.arrays import Bools, Scored
from verdictree_evaluation.data.datasets import Problem
from verdictree_evaluation.metrics import breakdowns, evaluate
from verdictree_evaluation.metrics.decisions import PER_CATEGORY, Method, methods, unsafe_flags
from verdictree_evaluation.reports import examples, plots, report

METRICS, REPORT, PREDICTIONS, TUNE_PREDICTIONS = (
    "metrics.json",
    "report.html",
    "predictions.jsonl",
    "tune-predictions.jsonl",
)
_BASELINES = (
    "At the forced prefix “unsafe, S” the top label is named, and the second too on the better side of a tuned "
    "threshold on the label logits' top probability, entropy, or LogTokU (Dirichlet aleatoric × epistemic uncertainty "
    "of the top two logits, arXiv 2502.00290); rows that the guard finds safe name nothing. They rank no categories: "
    "they have neither scores nor a fixed threshold."
)
_NO_LOGITS = "Left out: they need the label logits, which a server does not show; run the release in process for them."


@dataclass(frozen=True)
class Run:
    """What was evaluated and how; `scored` and `tune` carry calibrated scores, whose origin `calibrated_by` names."""

    guard: str
    names: dict[str, str]
    scored: Scored
    tune: Scored | None
    tuned_on: str
    calibrated_by: str
    calibration: Calibration | None
    problems: Sequence[Problem]
    warnings: Sequence[str]
    files: dict[str, str]
    num_resamples: int
    seed: int
    redact: bool


def measure(run: Run, begin: Any) -> dict[str, Any]:
    """Everything that `metrics.json` says; `begin(views)` returns the call that advances the progress bar."""
    views = evaluate.views(run.scored, run.tune)
    advance = begin(sum(len(methods(view.scored, view.tune, run.seed)) for view in views))
    return {
        "guard": run.guard,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": metadata.version("verdictree"),
        "files": run.files,
        "num_rows": len(run.scored),
        "kinds": dict(Counter(row.label_kind for row in run.scored.rows)),
        "warnings": list(run.warnings),
        "problems": [str(problem) for problem in run.problems],
        "tuned_on": run.tuned_on,
        "calibrated_by": run.calibrated_by,
        "ece_bins": "15 of equal width",
        "num_resamples": run.num_resamples,
        "seed": run.seed,
        "baselines": _BASELINES if run.scored.label_logits is not None else _NO_LOGITS,
        "views": [evaluate.measure(view, run.num_resamples, run.seed, advance) for view in views],
        "unsafe": breakdowns.measure_unsafe(run.scored, run.num_resamples, run.seed),
        "categories": breakdowns.measure_categories(run.scored, _marginal(run)),
        "sources": breakdowns.measure_sources(run.scored, unsafe_flags(run.scored, run.tune, run.seed)),
    }


def write(run: Run, measured: dict[str, Any], folder: Path) -> Path:
    """Write both files; return the report's path."""
    (folder / METRICS).write_text(json.dumps(measured, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    path = folder / REPORT
    path.write_text(report.render({**measured, **_readable(run)}), encoding="utf-8")
    return path


def _readable(run: Run) -> dict[str, Any]:
    scored, flags = run.scored, _marginal(run).flags[PER_CATEGORY]
    unsafe = unsafe_flags(scored, run.tune, run.seed)
    return {
        "names": run.names,
        "calibration": run.calibration,
        "redacted": run.redact,
        "max_examples": examples.MAX_EXAMPLES,
        "mistakes": [
            examples.unsafe_mistakes(scored, unsafe, redact=run.redact),
            *examples.category_mistakes(scored, flags, redact=run.redact),
        ],
        "plots": _plots(scored, flags),
    }


def _plots(scored: Scored, flags: Bools) -> dict[str, str]:
    return {
        "histograms": plots.score_histograms(scored),
        "reliability": plots.reliability(scored),
        "category_reliability": plots.category_reliability(scored),
        "precision_recall": plots.precision_recall(scored),
        "confusion": plots.confusion(scored, flags),
        "scatter": plots.estimate_scatter(scored),
    }


def _marginal(run: Run) -> Method:
    return next(method for method in methods(run.scored, run.tune, run.seed) if method.name == evaluate.REFERENCE)
