"""Many policies in one release: each request is judged by its own, whoever is in its batch."""

from __future__ import annotations

import msgspec
import pytest
import tiny_guard

from verdictree.conversation import Conversation, Message
from verdictree.errors import AmbiguousGrammar, InvalidConversation, InvalidPolicy
from verdictree.policy import Category, Policy
from verdictree.releases.calibration import Calibrator, Outcome
from verdictree.runtime.local_guard import LocalGuard
from verdictree.verdict_tree.exploration import Exploration
from verdictree_export.exporter import export_release

pytestmark = pytest.mark.slow

RAW = Category("S1", "One of this tenant", threshold=0.0, calibrated=False)
TENANTS = tuple(
    Policy(f"tenant-{i}", "1", (RAW, Category("S10" if i % 2 else "K7", f"Ten {'ten ' * (i % 5)}{i}", threshold=0.999)))
    for i in range(31)
)
POLICIES = (tiny_guard.POLICY, msgspec.structs.replace(TENANTS[0], roles=("assistant",)), *TENANTS[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_guard.write_checkpoint(tmp_path_factory.mktemp("tiny-guard"))


@pytest.fixture(scope="module")
def models(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    export_release(
        str(folder), "llama-guard-3", POLICIES, path, exploration=Exploration(2, 0.0, 32), max_off_grammar=1.0
    )
    return path


@pytest.fixture(scope="module")
def offline(models):
    return LocalGuard.load(models, 1, threads=1)


def ask(text, policy=None):
    return Conversation((Message("user", "hi"), Message("assistant", text)), policy=policy)


def numbers(verdict):
    return [verdict.p_unsafe, verdict.p_safe, verdict.unexplored, *(score.marginal for score in verdict.categories)]


def test_every_policy_is_proven(offline):
    """A policy whose prompt went wrong at export must not hide behind the default one's parity."""
    assert offline.release.parity.num_conversations == len(offline.release.prompts) == 2 * 32 - 1


def test_a_verdict_holds_the_categories_of_its_policy(offline):
    """A category that a policy leaves out must be absent: a 0 would read as a judgement."""
    default, named, first = offline.classify([ask("hello"), ask("hello", "tenant-1"), ask("hello", "tenant-0")])
    assert (default.policy, [s.code for s in default.categories]) == ("tiny", ["S1", "S2", "S10"])
    assert [(s.code, s.name) for s in named.categories] == [("S1", RAW.name), ("S10", "Ten ten 1")]
    assert [s.code for s in first.categories] == ["S1", "K7"]
    with pytest.raises(KeyError, match="not a category of policy 'tenant-1'"):
        named["S2"]


def test_batch_of_one_policy_equals_batch_of_all(offline):
    """One tenant's numbers must not depend on which other tenants' requests share the batch."""
    requests = [ask(f"hello {'very ' * (i % 7)}there", policy.name) for i, policy in enumerate(POLICIES)]
    together = offline.classify(requests)
    for request, verdict in zip(requests, together, strict=True):
        assert verdict.policy == request.policy
        assert numbers(verdict) == pytest.approx(numbers(offline.classify([request])[0]), abs=1e-5)
    texts = {tuple(numbers(one)) for one in offline.classify([ask("hello there", p.name) for p in POLICIES])}
    assert len(texts) == len(POLICIES), "each policy asks a question of its own"


def test_unknown_policy_and_role_are_refused(offline):
    """A tenant must not silently get another tenant's policy, nor a role that its policy was not written for."""
    with pytest.raises(InvalidConversation, match=r"expected policy 'tiny', 'tenant-0', .* got 'children'"):
        offline.tokenize(ask("hi", "children"))
    with pytest.raises(InvalidConversation, match="role assistant, which policy 'tenant-0' judges, got 'user'"):
        offline.tokenize(Conversation((Message("user", "hi"),), policy="tenant-0"))


def test_thresholds_and_calibration_are_each_policys_own(models, offline):
    """Flags by another tenant's threshold, or a calibrated score where the policy wants the raw one, mislead."""
    plain = offline.classify([ask("hello", "tenant-1"), ask("hello")])
    assert [s.flagged for s in plain[0].categories] == [True, False]
    assert [s.flagged for s in plain[1].categories] == [None] * 3
    outcomes = [Outcome(code, Calibrator("platt", intercept=1.0), 0.0, "r", 1, 1) for code in ("unsafe", "S1", "S10")]
    path = tiny_guard.calibrate(models, "tenant-1", outcomes)
    try:
        tenant, default = LocalGuard.load(models, 1, threads=1).classify([ask("hello", "tenant-1"), ask("hello")])
    finally:
        path.unlink()
    assert (tenant.calibration, tenant["S1"].calibrated, tenant["S1"].flagged) == ("1.1", None, True)
    assert tenant["S10"].calibrated == pytest.approx(float(outcomes[2].calibrator(tenant["S10"].marginal)))
    assert tenant["S10"].flagged is False, "the policy's threshold overrides the fitted one"
    assert default.calibration is None and default.flagged is None


@pytest.mark.parametrize(
    ("policies", "error", "said"),
    [
        ([], InvalidPolicy, "at least one policy"),
        ([tiny_guard.POLICY, tiny_guard.POLICY], InvalidPolicy, "got 'tiny' 2 times"),
        ([Policy("p", "1", (Category("S1", "a"), Category("S1,S2", "b")))], AmbiguousGrammar, "'S1.*\\["),
    ],
)
def test_policies_that_cannot_share_a_release_are_refused(folder, tmp_path, policies, error, said):
    """Two policies of one name, or labels that a tokenizer cannot tell apart, would mix up tenants' scores."""
    with pytest.raises(error, match=said):
        export_release(str(folder), "llama-guard-3", policies, tmp_path)
