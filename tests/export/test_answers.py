"""What must never become a release: numbers that are none, and a guard that never answers a verdict."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import tiny_guard
import torch

from verdictree.conversation import Conversation, Message
from verdictree.errors import UnsupportedGuard
from verdictree.releases import repository
from verdictree.runtime.local_guard import LocalGuard
from verdictree.verdict import CategoryScore, GreedyVerdict, Verdict
from verdictree.verdict_tree.exploration import Exploration
from verdictree_export import golden, policy_addition
from verdictree_export.exporter import export_release
from verdictree_export.finite import require_finite, require_finite_verdicts
from verdictree_export.int8 import conversion as int8
from verdictree_export.int8 import quality_gate
from verdictree_export.onnx_file.graph_prefill import Prefill
from verdictree_export.policy_addition import add_policies
from verdictree_export.prompts import checkpoint

NOT_FINITE = (math.nan, math.inf, -math.inf)
NARROW = Exploration(1, 0.0, 4)


def verdict(**changes):
    scores = (CategoryScore("S1", "One", 0.5, 0.5, 0.5), CategoryScore("S2", "Two", 0.1, 0.0, 0.0))
    greedy = GreedyVerdict("unsafe\nS1", ("S1",), True)
    return msgspec.structs.replace(Verdict(1, "p", "user", 0.6, 0.3, scores, 0.0, 0.1, greedy, 5, 0), **changes)


@pytest.mark.parametrize("number", NOT_FINITE)
def test_every_number_of_a_verdict_must_be_finite(number):
    """A field that the check forgets would carry NaN into the proof of a release."""
    require_finite_verdicts([verdict()], "the guard")
    changed = [verdict(**{name: number}) for name in ("p_unsafe", "p_safe", "unexplored", "off_grammar")]
    for name in ("marginal", "joint", "conditional"):
        scores = verdict().categories
        changed.append(verdict(categories=(scores[0], msgspec.structs.replace(scores[1], **{name: number}))))
    for one in changed:
        with pytest.raises(UnsupportedGuard, match="expected finite numbers from the guard, got"):
            require_finite_verdicts([verdict(), one], "the guard")


@pytest.mark.parametrize("number", NOT_FINITE)
def test_quality_gate_of_numbers_that_are_none_is_a_failure(number):
    """A quantile of NaN compares with no limit, and an AUC of NaN ranks it somewhere."""
    scores = (msgspec.structs.replace(verdict().categories[0], marginal=number), verdict().categories[1])
    for wrong in (verdict(p_unsafe=number), verdict(categories=scores)):
        for pair in ([verdict(), wrong], [verdict()] * 2), ([verdict()] * 2, [wrong, verdict()]):
            with pytest.raises(UnsupportedGuard, match=r"finite numbers from the (converted|floating-point) guard"):
                quality_gate.measure(*pair, labels=[("S1",), ()])


def test_repeated_conversations_count_once():
    """What int8 is judged by must not be what it was fitted to, nor vanish after the export's work."""
    ones = [int8.Example(Conversation((Message("user", f"text {i}"),))) for i in range(64)]
    with pytest.raises(UnsupportedGuard, match=r"got 64 \(128 with repetitions\)"):
        int8.check([*ones, *ones])
    int8.check([*ones, *(int8.Example(Conversation((Message("user", f"more {i}"),))) for i in range(64))])


def test_no_numbers_are_finite():
    """A tree without labels has no marginals, which is no fault."""
    require_finite([], "nobody")


@pytest.mark.slow
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_damaged_checkpoint_is_no_release(tmp_path, number):
    """`max(worst, nan)` is `worst`: a checkpoint that computes nothing passed for a faithful export."""
    folder = tiny_guard.write_checkpoint(tmp_path / "c", **tiny_guard.FLUENT)
    model = checkpoint.load(str(folder)).model
    safe = checkpoint.load(str(folder)).encode("safe")[0]
    with torch.no_grad():
        model.lm_head.weight[safe] = number
    model.save_pretrained(folder)
    with pytest.raises(UnsupportedGuard, match=r"expected finite numbers from .*, got"):
        export_release(str(folder), "llama-guard-3", [tiny_guard.POLICY], tmp_path / "m", exploration=NARROW)
    assert repository.releases(tmp_path / "m") == ()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tiny_guard.write_checkpoint(tmp_path_factory.mktemp("c"), **tiny_guard.FLUENT)
    path = tmp_path_factory.mktemp("models")
    release = export_release(str(folder), "llama-guard-3", [tiny_guard.POLICY], path, exploration=NARROW)
    assert release.max_off_grammar == 0.5
    return path


@pytest.mark.slow
def test_an_added_policy_of_numbers_that_are_none_is_refused(models, monkeypatch):
    """The proof of an added policy compares probabilities: NaN is near to none."""
    prefill = policy_addition.prefill_by_graph

    def damaged(*arguments):
        return [Prefill(right.key_values, np.full_like(right.log_probs, np.nan)) for right in prefill(*arguments)]

    monkeypatch.setattr(policy_addition, "prefill_by_graph", damaged)
    other = msgspec.structs.replace(tiny_guard.POLICY, name="other")
    with pytest.raises(UnsupportedGuard, match="expected finite numbers from the graph's own prefill"):
        add_policies(models, 1, [other])
    assert repository.releases(models) == (1,)


@pytest.mark.slow
def test_golden_scores_that_are_none_are_refused(models, monkeypatch):
    """A golden conversation of NaN could never be repeated, or by anything."""
    monkeypatch.setattr(LocalGuard, "classify", lambda _self, asked: [verdict(p_safe=math.nan) for _ in asked])
    with pytest.raises(UnsupportedGuard, match="expected finite numbers from the golden conversations"):
        add_policies(models, 1, [msgspec.structs.replace(tiny_guard.POLICY, name="other")])


@pytest.mark.slow
def test_a_guard_that_answers_no_verdict_is_refused(tmp_path):
    """It scores every category next to 0: without a word that would be "not flagged", for every conversation."""
    folder = str(tiny_guard.write_checkpoint(tmp_path / "c"))
    arguments = (folder, "llama-guard-3", [tiny_guard.POLICY], tmp_path / "m")
    with pytest.raises(
        UnsupportedGuard, match=r"got [01]\.\d+ .* under policy 'tiny'; to 'What is .*' it answers '.+'"
    ):
        export_release(*arguments, exploration=NARROW)
    assert repository.releases(tmp_path / "m") == ()
    release = export_release(*arguments, exploration=NARROW, max_off_grammar=1.0)
    assert release.max_off_grammar == 1.0 and all(one.p_safe + one.p_unsafe < 0.5 for one in release.golden)


@pytest.mark.slow
def test_one_verdict_among_the_probes_is_enough(models, monkeypatch):
    """The golden conversations are three; a guard may be at a loss for words at just those."""
    classify, asked = LocalGuard.classify, []

    def at_a_loss(self, conversations):
        lost = {messages[-1].content for messages in golden.CONVERSATIONS}
        asked.extend(one.messages[-1].content for one in conversations)
        return [
            msgspec.structs.replace(found, off_grammar=0.9) if one.messages[-1].content in lost else found
            for one, found in zip(conversations, classify(self, conversations), strict=True)
        ]

    monkeypatch.setattr(LocalGuard, "classify", at_a_loss)
    added = add_policies(models, 1, [msgspec.structs.replace(tiny_guard.POLICY, name="other")])
    assert added.number == 2 and "What is the capital of France?" in asked
