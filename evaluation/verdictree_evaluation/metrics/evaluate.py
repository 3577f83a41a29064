"""The evaluation of scored rows: the paper's table in every view of the labels, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from verdictree.policy import Policy
from verdictree.releases.calibration import Calibration
from verdictree.releases.decision import Decision
from verdictree_evaluation.data.arrays import Array, Scored
from verdictree_evaluation.metrics import calibrate, metrics, resampling
from verdictree_evaluation.metrics.decisions import NUM_FOLDS, methods

REFERENCE = "marginal"
MIN_VIEW_ROWS = 20

Advance = Callable[[], None]


@dataclass(frozen=True)
class View:
    """One reading of the same rows: what it judges, on which rows, and the rows that thresholds are tuned on."""

    name: str
    explanation: str
    scored: Scored
    tune: Scored | None


def views(scored: Scored, tune: Scored | None) -> list[View]:
    """The readings that the rows' label kinds allow; the first one masks what is unlabelled."""
    views = [View("known labels", "Categories that a row says nothing of are left out.", scored, tune)]
    if not scored.known.all():
        text = (
            "Categories that a row says nothing of count as absent. Too strict, since a text can hold hazards that it "
            "was not written for; but only this reading sees one category taken for another."
        )
        views.append(View("unlabelled as absent", text, scored.closed(), tune.closed() if tune else None))
    composed = scored.of_kind("composed")
    if composed.sum() >= MIN_VIEW_ROWS and not composed.all():
        other = tune.select(tune.of_kind("composed")) if tune else None
        learned = (other if other is not None and len(other) >= MIN_VIEW_ROWS else tune) if tune else None
        text = "Only rows joined from prompts of several categories; categories of none of their parts count as absent."
        rows = scored.select(composed).closed()
        views.append(View("composed rows", text, rows, learned.closed() if learned else None))
    return views


def calibrated(
    scored: Scored, tune: Scored | None, policy: Policy | None, calibration: Calibration | None, seed: int
) -> tuple[Scored, Scored | None, str]:
    """The rows with calibrated scores and the flags that are served, and where the scores come from.

    `policy` is the release's, None for a server's, which calibrates and flags by itself.

    The server's, else the release's artifact, else a calibration fitted on `tune`, else one fitted on the other folds.
    """
    if scored.calibrated is not None:
        return scored, tune, "calibrated by the server"
    if calibration is not None:
        text = f"the release's own, {calibration.version}, fitted on {', '.join(calibration.data)}"
        if policy is None:
            raise ValueError("expected the policy of the calibration, got none")
        decision = Decision(policy, calibration)
        return _applied(scored, decision, calibration), _applied(tune, decision, calibration) if tune else None, text
    if policy is not None and any(category.threshold is not None for category in policy.categories):
        decision = Decision(policy)
        scored = replace(scored, served_flags=decision.flags(decision.scores(scored.estimates[REFERENCE])))
    plan = calibrate.Plan(seed=seed, raw=calibrate.left_raw(policy) if policy else frozenset())
    if tune is not None:
        fitted = calibrate.fit(tune, plan)
        text = "fitted on the rows of --tune" + _left_raw([fitted])
        return _with(scored, *fitted.calibrated(scored)), _with(tune, *fitted.calibrated(tune)), text
    marginal, p_unsafe = np.empty_like(scored.estimates[REFERENCE]), np.empty_like(scored.p_unsafe)
    folds, fits = scored.folds(NUM_FOLDS, seed), []
    for fold in np.unique(folds):
        fits.append(calibrate.fit(scored.select(folds != fold), plan))
        marginal[folds == fold], p_unsafe[folds == fold] = fits[-1].calibrated(scored.select(folds == fold))
    text = f"cross-fitted, each of {NUM_FOLDS} folds on the others" + _left_raw(fits)
    return _with(scored, marginal, p_unsafe), None, text


def _left_raw(fits: Sequence[calibrate.Fitted]) -> str:
    codes = {code: None for fitted in fits for code, losses in fitted.losses.items() if not losses}
    return f"; left raw for want of labelled rows: {', '.join(codes)}" if codes else ""


def _applied(scored: Scored, decision: Decision, calibration: Calibration) -> Scored:
    scores = decision.scores(scored.estimates[REFERENCE])
    p_unsafe = calibration.unsafe.calibrator(scored.p_unsafe)
    return replace(_with(scored, scores, p_unsafe), served_flags=decision.flags(scores))


def _with(scored: Scored, marginal: Array, p_unsafe: Array) -> Scored:
    return replace(scored, calibrated=marginal, p_unsafe_calibrated=p_unsafe)


def measure(view: View, num_resamples: int, seed: int, advance: Advance = lambda: None) -> dict[str, Any]:
    """One view's table and the marginal's paired differences to every other method, all with 95% intervals."""
    scored = view.scored
    weights = resampling.resamples(len(scored), num_resamples, seed)
    rows, found = [], {}
    for method in methods(scored, view.tune, seed):
        spread = resampling.distributions(resampling.statistics(scored, method), weights)
        values = metrics.figures(scored, method)
        found[method.name] = (values, spread)
        rows.append({"method": method.name, "figures": with_intervals(values, spread)})
        advance()
    return {
        "view": view.name,
        "explanation": view.explanation,
        "num_rows": len(scored),
        "num_known": int(scored.known.sum()),
        "num_positive": int((scored.truth & scored.known).sum()),
        "methods": rows,
        "differences": _differences(found),
    }


def with_intervals(values: metrics.Figures, spread: dict[str, Array]) -> dict[str, Any]:
    """Each figure as `{value, interval}`, None where it is not defined; `spread` has its value on each resample."""
    return {
        name: None if value is None else {"value": value, "interval": resampling.interval(spread[name])}
        for name, value in values.items()
    }


def _differences(found: dict[str, tuple[metrics.Figures, dict[str, Array]]]) -> list[dict[str, Any]]:
    own_values, own_spread = found[REFERENCE]
    rows = []
    for name, (values, spread) in found.items():
        if name == REFERENCE:
            continue
        shared = [key for key, value in values.items() if value is not None and own_values.get(key) is not None]
        figures = {
            key: {
                "value": float(own_values[key] or 0.0) - float(values[key] or 0.0),
                "interval": resampling.interval(own_spread[key] - spread[key]),
            }
            for key in shared
        }
        rows.append({"of": REFERENCE, "minus": name, "figures": figures})
    return rows
