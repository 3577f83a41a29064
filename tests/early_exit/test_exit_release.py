"""A release with an early exit: its verdicts, and what may become of it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from exit_guard import LAYER, MAX_MISSED, conversations

from verdictree.conversation import Conversation, Message
from verdictree.errors import NoVerdict, UnsupportedGuard
from verdictree.policy import Category, Policy
from verdictree.releases.decision import is_alert
from verdictree.releases.release import GRAPH_MODEL, WEIGHTS_FILE, Release
from verdictree.runtime.local_guard import LocalGuard
from verdictree.verdict_tree.exploration import LEFT
from verdictree_client.rollout.errors import Refused
from verdictree_client.rollout.releases import derive
from verdictree_export.early_exit.new_release import fit_release
from verdictree_export.early_exit.request import ExitRequest
from verdictree_export.policy_addition import add_policies

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def early(pair):
    return LocalGuard.load(pair.path, 1, threads=1)


@pytest.fixture(scope="module")
def left(early):
    """Verdicts on new conversations that left."""
    verdicts = early.classify_all(conversations(60, 3) + conversations(60, 4, "assistant"))
    return [one for one in verdicts if one.exit_layer is not None]


def test_the_manifest_says_what_is_proven(early):
    exit_ = early.release.early_exit
    assert (exit_.layer, {(rule.policy, rule.role) for rule in exit_.rules}) == (
        LAYER,
        {("tiny", "user"), ("tiny", "assistant")},
    )
    for rule in exit_.rules:
        proof = rule.proof
        assert proof.max_missed == MAX_MISSED
        assert proof.num_missed <= MAX_MISSED * proof.num_alerts
        assert 0 < proof.num_left < proof.num_conversations
        assert proof.num_missed / proof.num_conversations < proof.missed_of_all < 1
    assert early.release.format == 3


def test_what_left_has_limits_and_is_allowed(left):
    assert left
    for verdict in left:
        assert verdict.exit_layer == LAYER
        assert (verdict.flagged, verdict.action, verdict.unsafe_flagged) == (False, "allow", False)
        assert 0 < verdict.p_unsafe == verdict.unexplored == pytest.approx(1 - verdict.p_safe)
        assert all((score.marginal, score.calibrated) == (0.0, None) for score in verdict.categories)
        assert verdict.fault() is None


def test_limits_hold_for_new_conversations(early):
    """Of those that leave, 99 % have P(unsafe) within their limit; a little less is chance."""
    asked = conversations(500, 5)
    verdicts = list(early.classify_all(asked))
    full = early.classify_all([msgspec.structs.replace(one, exact=True) for one in asked])
    pairs = [(a, b) for a, b in zip(verdicts, full, strict=True) if a.exit_layer is not None]
    assert np.mean([b.p_unsafe <= a.p_unsafe for a, b in pairs]) > 0.96
    alerts = [is_alert(b) for _, b in pairs]
    assert all(b.exit_layer is None for _, b in pairs)
    assert np.mean(alerts) < 0.3


def test_windows_never_leave(early):
    """The worst of several windows is the verdict, and limits have no worst."""
    long = Conversation((Message("user", "hello " * 3000),), truncate="windows")
    (verdict,) = early.classify([long])
    assert len(verdict.windows) > 1
    assert verdict.exit_layer is None


def test_a_graph_that_lets_leave_whom_the_manifest_does_not(pair, early):
    """A graph and a manifest of different exports give no verdict, and no `allow`."""
    release = msgspec.structs.replace(
        early.release, early_exit=msgspec.structs.replace(early.release.early_exit, rules=())
    )
    other = LocalGuard(release, early.tokenize._tokenizer, early._run)
    asked = [one for one in conversations(60, 3) if early.classify([one])[0].exit_layer is not None]
    with pytest.raises(NoVerdict, match="not of one export"):
        other.classify(asked[:1])


def test_strangers_cannot_say_that_they_left(early):
    """Who sends tensors to the marginals step claims it with log-odds that nobody leaves by."""
    tokenized = early.tokenize(conversations(1, 3)[0])
    outputs = [np.array(one) for one in early.infer([tokenized])]
    outputs[3][:] = LEFT
    outputs[1][:] = 1e6
    (outcome,) = early.outcomes([tokenized], outputs)
    assert isinstance(outcome, NoVerdict)


def test_other_thresholds_need_another_proof(pair):
    with pytest.raises(Refused, match="early-exit fit --calibration"):
        derive(pair.path, 1, None, {"S1": 0.3})


def test_an_exit_is_fitted_anew_for_a_release(pair, early):
    """On other conversations: another rule, the same weights, the same answers in full."""
    release, found = fit_release(pair.path, 1, conversations(900, 11), max_missed=MAX_MISSED)
    assert [rule.role for rule in found.early_exit.rules] == ["user"]
    assert "no conversation" in found.without_rule["tiny", "assistant"]
    weights = [pair.path / GRAPH_MODEL / str(number) / WEIGHTS_FILE for number in (1, release.number)]
    assert weights[0].samefile(weights[1])
    guard = LocalGuard.load(pair.path, release.number, threads=1)
    answers = list(guard.classify_all(conversations(30, 4, "assistant")))
    assert all(one.exit_layer is None for one in answers)
    for one in conversations(10, 3):
        full = msgspec.structs.replace(one, exact=True)
        assert guard.classify([full])[0].p_unsafe == early.classify([full])[0].p_unsafe
    assert any(one.exit_layer is not None for one in guard.classify_all(conversations(40, 3)))


def test_too_few_conversations_are_refused_with_the_number(pair):
    with pytest.raises(UnsupportedGuard, match=r"expected at least 598 conversations .* about 1196 in all"):
        fit_release(pair.path, 1, conversations(300, 12))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (ExitRequest(conversations(1195, 0)), r"at least 1196 conversations .* got 1195"),
        (ExitRequest(conversations(1196, 0), layer=4), "exit layer from 1 to 3 .* got 4"),
        (ExitRequest(conversations(1196, 0), layer=0), "exit layer from 1 to 3 .* got 0"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_export(early, request_, said):
    """Minutes later it would cost as much to read."""
    with pytest.raises(UnsupportedGuard, match=said):
        request_.check(early.release, num_layers=5)


def test_a_release_without_an_exit_is_refused(pair):
    with pytest.raises(UnsupportedGuard, match="export the guard again with --early-exit"):
        fit_release(pair.path, 2, conversations(3, 0))


def test_added_policies_never_leave(pair, early):
    """They are asked by the same graph, and the rules of the others stay."""
    added = Policy("more", "1", (Category("K1", "Other"),))
    release = add_policies(pair.path, 1, [added])
    assert release.early_exit == early.release.early_exit
    guard = LocalGuard.load(pair.path, release.number, threads=1)
    for one in conversations(40, 3):
        answer, former = guard.classify([one])[0], early.classify([one])[0]
        assert (answer.exit_layer, answer.p_unsafe) == (former.exit_layer, pytest.approx(former.p_unsafe, abs=1e-5))
        assert guard.classify([msgspec.structs.replace(one, policy="more")])[0].exit_layer is None


def test_a_policy_can_ask_for_the_full_pass(pair):
    """`exact: true` in a policy: no rule is fitted for it."""
    from verdictree_export.early_exit import fitting
    from verdictree_export.early_exit.observations import Observations

    release = Release.load_verified(pair.path, 1)
    exact = msgspec.structs.replace(release, policies=(msgspec.structs.replace(release.policy, exact=True),))
    nothing = Observations((), np.zeros((0, 2), np.float32), np.zeros(0, bool), np.zeros(0))
    with pytest.raises(UnsupportedGuard, match="the policy asks for the full pass"):
        fitting.fit({("tiny", "user"): nothing}, exact, LAYER)
