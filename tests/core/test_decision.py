"""What is flagged, the same for the server, an evaluation and a comparison."""

from __future__ import annotations

import itertools
import json

import msgspec
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
from verdictree.verdict import ACTIONS, CategoryScore, GreedyVerdict, Verdict, parse
from verdictree_comparison.arrays import gather

P = st.floats(0, 1)


def raw(p_unsafe, marginals):
    categories = tuple(CategoryScore(f"S{i}", f"S{i}", p, 0.0, 0.0) for i, p in enumerate(marginals))
    greedy = GreedyVerdict("safe", (), True)
    return Verdict(1, "p", "user", p_unsafe, 1 - p_unsafe, categories, 0.0, 0.0, greedy, 5, 0)


def policy(*categories, **whole):
    return Policy("p", "1", tuple(Category(f"S{i}", f"S{i}", **one) for i, one in enumerate(categories)), **whole)


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


LIMITS = st.fixed_dictionaries({"threshold": st.none() | P, "review": st.none() | P})


@st.composite
def decisions_and_scores(draw):
    """A decision over two categories, every number in any order, and twice P(unsafe) and two marginals, rising."""
    artifact = calibration(draw(P), ("S0", draw(P)), ("S1", draw(P))) if draw(st.booleans()) else None
    asked = policy(draw(LIMITS), {**draw(LIMITS), "calibrated": draw(st.booleans())}, **draw(LIMITS))
    pairs = [sorted((draw(P), draw(P))) for _ in range(3)]
    return asked, artifact, Decision(asked, artifact), *zip(*pairs, strict=True)


def judged(asked, artifact, verdict):
    """Action, flag, score, review and threshold of every category, after those of the whole answer (no action)."""
    whole = verdict.p_unsafe if artifact is None else verdict.p_unsafe_calibrated
    fitted = (None, None, None) if artifact is None else (artifact.unsafe, *artifact.categories)
    found = [(None, verdict.unsafe_flagged, whole)]
    for score in verdict.categories:
        found.append((score.action, score.flagged, score.marginal if score.calibrated is None else score.calibrated))
    for (action, flagged, score), one, outcome in zip(found, (asked, *asked.categories), fitted, strict=True):
        own = one.threshold
        yield action, flagged, score, one.review, own if own is not None or outcome is None else outcome.threshold


@given(decisions_and_scores())
def test_an_action_is_what_the_thresholds_say(drawn):
    """Something flagged that only waits for review, or passes because its band ends above its threshold."""
    asked, artifact, decision, scores, _ = drawn
    verdict = decision.applied(raw(scores[0], scores[1:]))
    whole, *categories = judged(asked, artifact, verdict)
    for action, flagged, score, review, threshold in categories:
        assert (action == "block") == (flagged is True) == (threshold is not None and score >= threshold)
        assert (action is None) == (review is None and threshold is None)
        assert action != "allow" or all(score < limit for limit in (review, threshold) if limit is not None)
        assert action != "review" or (review <= score and (threshold is None or score < threshold))
    assert (verdict.action == "block") == (verdict.flagged is True)
    known = [limit for *_, review, threshold in (whole, *categories) for limit in (review, threshold)]
    assert (verdict.action is None) == (set(known) == {None})
    assert (verdict.flagged is None) == ({one[-1] for one in (whole, *categories)} == {None})
    if verdict.action == "allow":
        assert all(s < limit for _, _, s, *limits in (whole, *categories) for limit in limits if limit is not None)
    if verdict.action == "review":
        assert any(limit is not None and s >= limit for _, _, s, limit, _ in (whole, *categories))
    assert parse(verdict.to_json()) == verdict


@given(decisions_and_scores())
def test_a_higher_score_is_never_let_off(drawn):
    """A text that is worse in everything and gets a milder action."""
    _, _, decision, low, high = drawn
    milder, harder = (decision.applied(raw(scores[0], scores[1:])) for scores in (low, high))
    for one, other in zip((milder, *milder.categories), (harder, *harder.categories), strict=True):
        assert (one.action is None) == (other.action is None)
        assert one.action is None or ACTIONS.index(one.action) <= ACTIONS.index(other.action)


@given(decisions_and_scores())
def test_an_undecided_answer_is_blocked(drawn):
    """A guard that says something else has small probabilities, and they would allow."""
    _, _, decision, scores, _ = drawn
    said = raw(scores[0], scores[1:])
    expected = decisions.undecided(decision.applied(said))
    assert (expected.undecided, expected.flagged, expected.action) == (True, True, "block")
    assert decision.applied(msgspec.structs.replace(said, undecided=True)) == expected


@pytest.mark.parametrize(
    ("p_unsafe", "marginal", "action", "flagged"),
    [
        (0.1, 0.1, "allow", False),
        (0.1, 0.3, "review", False),
        (0.1, 0.6, "block", True),
        (0.5, 0.1, "review", False),
        (0.8, 0.1, "block", True),
        (0.8, 0.3, "block", True),
    ],
)
def test_the_worst_action_counts(p_unsafe, marginal, action, flagged):
    """A band of the whole answer that only counts where somebody calibrated, or hides what a category says."""
    asked = policy({"review": 0.3, "threshold": 0.6}, {}, review=0.5, threshold=0.8)
    verdict = Decision(asked).applied(raw(p_unsafe, [marginal, 0.9]))
    assert (verdict.action, verdict.flagged, verdict.unsafe_flagged) == (action, flagged, p_unsafe >= 0.8)
    assert (verdict["S1"].action, verdict["S1"].flagged, verdict.calibration) == (None, None, None)


def test_a_band_without_a_threshold_blocks_nothing():
    """An analyst who wants people to look at a category gets it blocked, or not shown to anybody."""
    decision = Decision(policy({"review": 0.3}))
    found = [decision.applied(raw(0.9, [marginal])) for marginal in (0.2, 0.3, 1.0)]
    assert [(one.action, one.flagged) for one in found] == [("allow", None), ("review", None), ("review", None)]


def test_the_policys_threshold_of_the_whole_answer_overrides_the_fitted_one():
    """A threshold that an analyst wrote, and nobody serves."""
    artifact = calibration(0.2, ("S0", 0.2), calibrator=Calibrator())
    found = Decision(policy({}, threshold=0.6), artifact).applied(raw(0.5, [0.1]))
    assert (found.unsafe_flagged, found.action) == (False, "allow")
    assert Decision(policy({}), artifact).applied(raw(0.5, [0.1])).unsafe_flagged


def test_bands_that_a_fitted_threshold_empties_are_named():
    """Reviewers wait for what is blocked before it reaches them."""
    asked = policy({"review": 0.3}, {"review": 0.3, "threshold": 0.5}, {}, review=0.4)
    fitted = [("S0", 0.3), ("S1", 0.1), ("S2", 0.1)]
    assert Decision(asked, calibration(0.2, *fitted)).empty_bands == ("unsafe", "S0")
    assert Decision(asked).empty_bands == ()


def test_a_verdict_without_thresholds_has_no_action():
    """`null` in a verdict that older clients read, or an action that nobody decided."""
    said = json.loads(Decision(policy({})).applied(raw(0.9, [0.9])).to_json())
    assert not {"action", "flagged"} & {*said, *said["categories"][0]}
    before = parse(json.dumps({**said, "flagged": False, "later": 1}).encode())
    assert (before.flagged, before.action) == (False, None), "an older server's"
    with pytest.raises(msgspec.DecodeError, match="action"):
        parse(json.dumps({**said, "action": "pass"}).encode())


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
