"""What is proven of a threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from verdictree.releases.early_exit import ExitBound, ExitProof, ExitRule
from verdictree_export.early_exit.risk_control import (
    COVERAGE,
    alerts_needed,
    bounds,
    proven_threshold,
    upper_limit,
)

CANDIDATES = np.linspace(-4, 4, 161).tolist()


@pytest.mark.parametrize(("max_missed", "confidence", "needed"), [(0.005, 0.95, 598), (0.01, 0.95, 299), (0.5, 0.5, 1)])
def test_how_many_alerts_are_needed(max_missed, confidence, needed):
    """With so many of which none is missed the first hypothesis is rejected, with one fewer it is not."""
    assert alerts_needed(max_missed, confidence) == needed
    assert (1 - max_missed) ** needed <= 1 - confidence < (1 - max_missed) ** (needed - 1)


@pytest.mark.parametrize("alerts", [598, 597])
def test_nothing_is_proven_of_fewer(alerts):
    log_odds, alert = np.full(alerts, 5.0), np.ones(alerts, dtype=bool)
    proven = proven_threshold(log_odds, alert, CANDIDATES, 0.005, 0.95)
    assert proven == (CANDIDATES[-1] if alerts == 598 else None)


def test_the_promise_is_kept_as_often_as_it_says():
    """Over many draws of the conversations, the true share of alerts below the threshold exceeds α in at most δ."""
    rng, max_missed, confidence, broken, draws = np.random.default_rng(0), 0.05, 0.9, 0, 400
    for _ in range(draws):
        alert = rng.random(1200) < 0.5
        log_odds = rng.normal(np.where(alert, 1.5, -1.5), 1.0)
        threshold = proven_threshold(log_odds, alert, CANDIDATES, max_missed, confidence)
        true_share = 0.5 * math.erfc(-(threshold - 1.5) / math.sqrt(2))
        broken += true_share > max_missed
    limit = (1 - confidence) * draws + 3 * math.sqrt(draws * confidence * (1 - confidence))
    assert 0 < broken <= limit  # and the threshold is no more careful than it must be


def test_the_first_threshold_that_fails_ends_the_sequence():
    """A later one that would pass by chance is not looked at."""
    alerts = np.concatenate([np.full(40, 0.0), np.full(2000, 3.0)])
    proven = proven_threshold(alerts, np.ones(2040, dtype=bool), CANDIDATES, 0.005, 0.95)
    assert proven == pytest.approx(0.0)


def test_upper_limits_of_a_share():
    """By the binomial distribution: of 0 in 598, 1 − 0.05^(1/598)."""
    assert upper_limit(0, 598, 0.95) == pytest.approx(1 - 0.05 ** (1 / 598))
    assert upper_limit(3, 3, 0.95) == 1.0


def test_limits_of_what_left_hold_for_new_conversations():
    rng = np.random.default_rng(1)

    def draw(count):
        log_odds = rng.uniform(-6, 0, count)
        return log_odds, np.minimum(1.0, rng.exponential(0.02, count) * np.exp((log_odds + 6) / 3))

    log_odds, top = draw(5000)
    found = bounds(log_odds, top, -1.0)
    assert [one.log_odds for one in found] == sorted(one.log_odds for one in found)
    assert [one.p_unsafe for one in found] == sorted(one.p_unsafe for one in found)
    proof = ExitProof(0.1, 0.9, 1, 1, 1, 0, 1.0, COVERAGE, "", "")
    rule = ExitRule("p", "user", -1.0, found, proof)
    log_odds, top = draw(20000)
    left = log_odds < -1.0
    within = np.mean([value <= rule.bound(odds) for odds, value in zip(log_odds[left], top[left], strict=True)])
    assert within >= COVERAGE - 0.005


def test_of_few_nothing_is_said():
    assert bounds(np.full(99, -2.0), np.zeros(99), -1.0) == (ExitBound(-1.0, 1.0),)
