"""The index of drift: its formula, what it takes for the same, and what it costs."""

from __future__ import annotations

import math
import time

import msgspec
import numpy as np
import pytest
from verdicts import verdict

from verdictree.releases.score_counts import EDGES, ScoreCounts
from verdictree_gateway.observing import drift
from verdictree_gateway.observing.drift import NUM_LEAST, NUM_REFERENCE, NUM_WINDOW, Drift, psi


def told(watched: Drift) -> dict[tuple[str, str, str, str], float]:
    (gauge,) = watched.collect()
    names = ("release", "policy", "role", "category")
    return {tuple(sample.labels[name] for name in names): sample.value for sample in gauge.samples}


def feed(watched: Drift, scores, **fields) -> None:
    for score in scores:
        watched.seen(verdict(score, score / 2, 0.2, **fields))


@pytest.mark.parametrize(
    ("reference", "window", "expected"),
    [
        ([500, 500], [800, 200], 0.3 * math.log(1.6) - 0.3 * math.log(0.4)),
        ([100, 300, 600], [300, 300, 400], 0.2 * math.log(3) - 0.2 * math.log(2 / 3)),
        ([900, 100], [9000, 1000], 0.0),
    ],
)
def test_the_index_is_the_formula(reference, window, expected):
    """A base-2 logarithm, or a sum over one direction only: half of the published value."""
    assert psi(reference, window) == pytest.approx(expected, rel=0.01)
    assert psi(reference, window) == pytest.approx(psi(window, reference))


def test_an_empty_bucket_is_finite():
    """One score where there was none before must not be infinite drift, nor much of it."""
    assert 0 < psi([1000, 0, 0], [999, 1, 0]) < 0.01 < 0.25 < psi([1000, 0], [500, 500]) < math.inf


def test_the_same_distribution_is_no_drift_and_a_shift_is():
    """An alarm that rings by chance, or stays silent when scores have doubled."""
    rng, watched = np.random.default_rng(3), Drift()
    feed(watched, rng.beta(0.5, 4, NUM_REFERENCE))
    assert told(watched) == {}, "with nothing to compare"
    feed(watched, rng.beta(0.5, 4, NUM_LEAST - 1))
    assert told(watched) == {}, "too few to say"
    feed(watched, rng.beta(0.5, 4, 1))
    assert len(told(watched)) == 3 and max(told(watched).values()) < 0.15
    feed(watched, rng.beta(0.5, 4, NUM_WINDOW))
    assert max(told(watched).values()) < 0.1
    feed(watched, rng.beta(2, 4, NUM_WINDOW))
    found = told(watched)
    assert found["1", "tiny", "user", "unsafe"] > 0.25 and found["1", "tiny", "user", "S1"] > 0.25
    assert found["1", "tiny", "user", "S2"] == pytest.approx(0.0, abs=1e-9)


def test_the_window_slides():
    """A shift that has passed, and is told of for ever."""
    rng, watched = np.random.default_rng(4), Drift()
    for a in (0.5, 3, 0.5):
        feed(watched, rng.beta(a, 4, NUM_REFERENCE))
    assert max(told(watched).values()) < 0.1


def test_the_window_counts_as_histograms_do():
    """A score on a bucket's bound belongs to it, as Prometheus' `le` says."""
    watched = Drift()
    feed(watched, [0.1] * NUM_REFERENCE + [0.1] * NUM_LEAST)
    (series,) = watched._series.values()
    ((name, reference, window),) = series.compared()
    place = drift.SCORE_BUCKETS.index(0.1)
    assert name == "first" and reference[0, place] == NUM_REFERENCE and window[0, place] == NUM_LEAST
    assert window.sum() == NUM_LEAST * 3


def test_releases_and_roles_do_not_mix():
    """A canary is another guard: its scores against the stable release's are no drift."""
    watched = Drift()
    for fields in ({"release": 1}, {"release": 2}, {"release": 1, "role": "assistant"}):
        feed(watched, [0.01 if fields["release"] == 1 else 0.9] * (NUM_REFERENCE + NUM_LEAST), **fields)
    assert len(told(watched)) == 9 and max(told(watched).values()) == pytest.approx(0, abs=1e-9)


def test_a_release_that_is_gone_is_not_told_of():
    """The last drift of a retired release, alarming for ever."""
    now = [0.0]
    watched = Drift(clock=lambda: now[0])
    feed(watched, [0.1] * (NUM_REFERENCE + NUM_LEAST))
    assert told(watched)
    now[0] = drift.SILENT_SECONDS + 1
    assert told(watched) == {}


def test_it_costs_little():
    """What every verdict pays. The bound is five times what it takes on an idle core."""
    watched, one = Drift(), verdict(0.1, *[0.01] * 14)
    begin = time.perf_counter()
    for _ in range(5000):
        watched.seen(one)
    assert (time.perf_counter() - begin) / 5000 < 50e-6


def calibrated_on(rng, a: float):
    """A calibration's rows: scores of Beta(a, 4), a third of which have it."""
    counts = {code: ScoreCounts.of(rng.beta(a, 4, 800), rng.random(800) < 1 / 3) for code in ("unsafe", "S1", "S2")}
    return lambda release, policy: counts if (release, policy) == (1, "tiny") else None


def live(watched: Drift, scores, **fields) -> None:
    """Verdicts whose raw scores are all 0.9: what is compared is what was calibrated."""
    for score in scores:
        one = verdict(0.9, 0.9, 0.9, p_unsafe_calibrated=score, **fields)
        each = [msgspec.structs.replace(of, calibrated=score) for of in one.categories]
        watched.seen(msgspec.structs.replace(one, categories=tuple(each)))


def test_live_scores_are_compared_with_those_of_the_calibration():
    """Traffic that was another from the start shows no drift, or every restart begins anew."""
    rng = np.random.default_rng(7)
    watched = Drift(calibrated=calibrated_on(rng, 0.5))
    live(watched, rng.beta(0.5, 4, NUM_LEAST - 1))
    assert told(watched) == {}, "too few to say"
    live(watched, rng.beta(0.5, 4, NUM_LEAST))
    assert len(told(watched)) == 3 and max(told(watched).values()) < 0.15
    moved = Drift(calibrated=calibrated_on(rng, 0.5))
    live(moved, rng.beta(2, 4, NUM_LEAST))
    assert min(told(moved).values()) > 0.25


def test_another_release_is_not_compared_with_this_ones_calibration():
    """A canary's scores against the stable release's rows."""
    rng = np.random.default_rng(8)
    watched = Drift(calibrated=calibrated_on(rng, 0.5))
    live(watched, rng.beta(2, 4, NUM_LEAST), release=2)
    assert told(watched) == {}


def test_a_calibrations_buckets_are_those_of_live_scores():
    """Bounds that differ by a rounding: every score of 0.3 has drifted."""
    assert set(drift.SCORE_BUCKETS) - {1.0} <= set(EDGES)
    scores = [*drift.SCORE_BUCKETS, 0.0, 0.2999, 0.3001]
    counts = ScoreCounts.of(scores, [False] * len(scores))
    watched = Drift(calibrated=lambda *_: dict.fromkeys(("unsafe", "S1", "S2"), counts))
    live(watched, scores * (NUM_LEAST // len(scores) + 1))
    assert max(told(watched).values()) == pytest.approx(0, abs=1e-9)
