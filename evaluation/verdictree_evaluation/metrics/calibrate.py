"""Fits a release's calibration on scored rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from verdictree.policy import UNSAFE, Policy
from verdictree.releases.calibration import Calibration, Calibrator, Method, Outcome
from verdictree.releases.release import Release
from verdictree.releases.score_counts import ScoreCounts
from verdictree_evaluation.data.arrays import Array, Bools, Scored
from verdictree_evaluation.defaults import MIN_POSITIVES
from verdictree_evaluation.errors import EvaluationError
from verdictree_evaluation.metrics import calibrators
from verdictree_evaluation.metrics.thresholds import MAX_F1, Rule, choose

Unlabelled = Literal["masked", "negative"]


@dataclass(frozen=True)
class Plan:
    """How to calibrate: the rule of every threshold, those of single codes (`unsafe` is P(unsafe)), and the rest.

    `raw` are the codes that the policy leaves uncalibrated.
    `unlabelled`: whether a category that a row says nothing of is left out (masked) or counts as absent (negative).
    """

    rule: Rule = MAX_F1
    rules: Mapping[str, Rule] | None = None
    raw: frozenset[str] = frozenset()
    min_positives: int = MIN_POSITIVES
    unlabelled: Unlabelled = "masked"
    seed: int = 0

    def rule_of(self, code: str) -> Rule:
        """The rule of this code's threshold."""
        return (self.rules or {}).get(code, self.rule)


def left_raw(policy: Policy) -> frozenset[str]:
    """The codes that a policy leaves uncalibrated."""
    return frozenset(category.code for category in policy.categories if not category.calibrated)


@dataclass(frozen=True)
class Fitted:
    """The outcomes of one fit, and each candidate's cross-validated log loss by code."""

    unsafe: Outcome
    categories: tuple[Outcome, ...]
    losses: dict[str, dict[Method, float]]

    def calibrated(self, scored: Scored) -> tuple[Array, Array]:
        """Calibrated marginals (n, c) and P(unsafe) (n,)."""
        columns = enumerate(self.categories)
        marginal = scored.estimates["marginal"]
        scores = [outcome.calibrator(marginal[:, column]) for column, outcome in columns]
        return np.stack(scores, axis=1), self.unsafe.calibrator(scored.p_unsafe)


def fit(scored: Scored, plan: Plan) -> Fitted:
    """Fit every category and P(unsafe); EvaluationError for a rule of a code that the policy lacks."""
    unknown = sorted(set(plan.rules or {}) - {UNSAFE, *scored.codes})
    if unknown:
        raise EvaluationError(f"expected codes among unsafe, {', '.join(scored.codes)}, got {', '.join(unknown)}")
    known = scored.known if plan.unlabelled == "masked" else np.ones_like(scored.known)
    losses: dict[str, dict[Method, float]] = {}

    def outcome(code: str, scores: Array, truth: Bools) -> Outcome:
        if code in plan.raw:
            fit = calibrators.Fit(Calibrator(), {}, "the policy leaves it uncalibrated")
        else:
            fit = calibrators.fit(scores, truth, min_positives=plan.min_positives, seed=plan.seed)
        losses[code] = fit.losses
        rule = plan.rule_of(code)
        calibrated = fit.calibrator(scores)
        threshold, note = choose(rule, calibrated, truth)
        notes = "; ".join(part for part in (fit.note, note) if part)
        positives = int(truth.sum())
        negatives = len(truth) - positives
        counts = ScoreCounts.of(calibrated, truth, threshold)
        return Outcome(code, _plain(fit.calibrator), threshold, str(rule), positives, negatives, notes, counts)

    unsafe = outcome(UNSAFE, scored.p_unsafe, scored.unsafe)
    marginal = scored.estimates["marginal"]
    categories = tuple(
        outcome(code, marginal[known[:, column], column], scored.truth[known[:, column], column])
        for column, code in enumerate(scored.codes)
    )
    return Fitted(unsafe, categories, losses)


def check_positives(fitted: Fitted, plan: Plan) -> None:
    """Raise EvaluationError where a threshold was chosen on fewer positives than the plan wants: it would be chance.

    A fixed threshold is not chosen on rows, so it may stand.
    """
    few = [
        outcome
        for outcome in (fitted.unsafe, *fitted.categories)
        if outcome.num_positives < plan.min_positives and plan.rule_of(outcome.code).kind != "fixed"
    ]
    if few:
        counts = ", ".join(f"{outcome.code} {outcome.num_positives}" for outcome in few)
        fixed = " ".join(f"--threshold {outcome.code}:fixed=0.2" for outcome in few)
        raise EvaluationError(
            f"expected at least {plan.min_positives} positives to choose a threshold on, got {counts}; give more rows, "
            f"or thresholds of your own ({fixed}), or a lower --min-positives"
        )


def artifact(
    fitted: Fitted,
    plan: Plan,
    *,
    version: str,
    release: Release,
    policy: str,
    manifest_sha256: str,
    data: dict[str, str],
) -> Calibration:
    """The fit as the calibration of a release's policy."""
    return Calibration(
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        release=release.number,
        policy=policy,
        manifest_sha256=manifest_sha256,
        guard_sha256=release.guard_sha256,
        data=data,
        unlabelled=plan.unlabelled,
        unsafe=fitted.unsafe,
        categories=fitted.categories,
    )


def next_version(release: int, previous: Calibration | None) -> str:
    """`RELEASE.N`: N counts the calibrations of a policy of the release, from 1."""
    number = int(previous.version.rpartition(".")[2]) + 1 if previous else 1
    return f"{release}.{number}"


def _plain(calibrator: Calibrator) -> Calibrator:
    fault = calibrator.fault()
    if fault:
        raise EvaluationError(f"expected an increasing calibrator, got {calibrator.method} where {fault}; report this")
    return calibrator
