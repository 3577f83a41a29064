"""What is flagged, the same for the server, an evaluation and a comparison."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdictree.errors import InvalidPolicy
from verdictree.pair import Pair
from verdictree.policy import Category, Policy
from verdictree.releases import decision as decisions
from verdictree.releases.calibration import Calibration, Calibrator, Outcome
from verdictree.releases.decision import DEFAULT_THRESHOLD, Decision
from verdictree.verdict import CategoryScore, GreedyVerdict, Verdict, parse
from verdictree_comparison.arrays import gather

P = st.floats(0, 1)


def raw(p_unsafe, marginals):
    categories = tuple(CategoryScore(f"S{i}", f"S{i}", p, 0.0, 0.0) for i, p in enumerate(marginals))
    greedy = GreedyVerdict("safe", (), True)
    return Verdict(1, "p", "user", p_unsafe, 1 - p_unsafe, categories, 0.0, 0.0, greedy, 5, 0)


def policy(*categories):
    return Policy("p", "1", tuple(Category(f"S{i}", f"S{i}", **one) for i, one in enumerate(categories)))


def calibration(unsafe, *thresholds, calibrator=Calibrator("platt", 2.0, 0.3)):  # noqa: B008, a frozen value
    outcomes = [Outcome(code, calibrator, threshold, "r", 30, 30) for code, threshold in thresholds]
    return Calibration(
        version="1.1",
        created="",
        release=1,
        policy="p",
        manifest_sha256="",
        guard_sha256="",
        data={},
        unlabelled="masked",
        unsafe=Outcome("unsafe", calibrator, unsafe, "r", 30, 30),
        categories=tuple(outcomes),
    )


OVERRIDES = st.lists(
    st.fixed_dictionaries({"threshold": st.none() | P, "calibrated": st.booleans()}), min_size=1, max_size=4
)


@given(OVERRIDES, st.data(), P, P, st.booleans())
def test_arrays_and_verdicts_are_decided_alike(overrides, data, p_unsafe, unsafe_threshold, is_calibrated):
    """An evaluation that reports other flags than the server raises, whatever a policy overrides."""
    size = len(overrides)
    marginals = data.draw(st.lists(P, min_size=size, max_size=size))
    fitted = data.draw(st.lists(P, min_size=size, max_size=size))
    artifact = calibration(unsafe_threshold, *((f"S{i}", one) for i, one in enumerate(fitted)))
    decision = Decision(policy(*overrides), artifact if is_calibrated else None)
    verdict = decision.applied(raw(p_unsafe, marginals))
    scores = decision.scores(np.array([marginals, marginals]))[1]
    flags = decision.flags(scores)
    for i, (score, override) in enumerate(zip(verdict.categories, overrides, strict=True)):
        used = is_calibrated and override["calibrated"]
        assert (score.calibrated is not None) == used and score.marginal == marginals[i]
        assert scores[i] == (score.calibrated if used else score.marginal)
        threshold = fitted[i] if override["threshold"] is None and is_calibrated else override["threshold"]
        assert score.flagged == (None if threshold is None else scores[i] >= threshold)
        assert flags[i] == bool(score.flagged)
    assert (verdict.unsafe_flagged is None) == (not is_calibrated)
    if is_calibrated:
        assert verdict.unsafe_flagged == (artifact.unsafe.calibrator(p_unsafe) >= unsafe_threshold)


@pytest.mark.parametrize(("whole", "category"), [*itertools.product([True, False], repeat=2)])
def test_an_answer_is_flagged_where_anything_of_it_is(whole, category):
    """`flagged: false` over a category that is flagged: a caller would let it through."""
    artifact = calibration(0.5, ("S0", 0.5), ("S1", 2.0), calibrator=Calibrator())
    verdict = Decision(policy({}, {}), artifact).applied(raw(0.9 if whole else 0.1, [0.9 if category else 0.1, 0.9]))
    assert (verdict.unsafe_flagged, verdict["S0"].flagged, verdict["S1"].flagged) == (whole, category, False)
    assert verdict.flagged == (whole or category) == decisions.is_anything_flagged(verdict)
    assert parse(verdict.to_json()) == verdict


def test_thresholds_without_a_calibration():
    """A policy's own threshold that counts only where somebody calibrated."""
    decision = Decision(policy({"threshold": 0.3}, {}))
    assert decision.applied(raw(0.9, [0.3, 0.9])).flagged is True
    below = decision.applied(raw(0.9, [0.2, 0.9]))
    assert (below.flagged, below["S1"].flagged, below.unsafe_flagged) == (False, None, None)
    assert Decision(policy({}, {})).applied(raw(0.9, [0.9, 0.9])).flagged is None


@given(P, st.lists(P, min_size=2, max_size=2), P, P)
def test_a_comparison_follows_the_server(p_unsafe, marginals, first, second):
    """Gates that are judged on other decisions than the ones that users got."""
    live = Decision(policy({}, {}), calibration(first, ("S0", second), ("S1", first))).applied(raw(p_unsafe, marginals))
    candidate = raw(p_unsafe, marginals)
    arrays = gather([Pair(live=live, live_ms=1.0, candidate=candidate, candidate_ms=1.0)])
    assert arrays.live_decisions.tolist() == [live.flagged]
    assert [bool(one.live_flags[0]) for one in arrays.scored] == [
        live.unsafe_flagged,
        *(s.flagged for s in live.categories),
    ]
    assert arrays.candidate_decisions.tolist() == [max(p_unsafe, *marginals) >= DEFAULT_THRESHOLD]


def test_the_code_unsafe_is_reserved(tmp_path):
    """A category whose scores and thresholds are taken for P(unsafe)'s."""
    path = tmp_path / "p.yaml"
    path.write_text("name: p\nversion: '1'\ncategories:\n- {code: S1, name: One}\n- {code: unsafe, name: Unsafe}\n")
    with pytest.raises(InvalidPolicy, match=r"p.yaml:5: category code 'unsafe' is reserved"):
        Policy.read(path)
