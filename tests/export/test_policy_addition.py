"""Policies that are added to a release: as if they had been exported with it, at none of the cost."""

from __future__ import annotations

import pytest
import tiny_guard
from test_policies import ask

from verdictree.conversation import Conversation, Message
from verdictree.errors import InvalidPolicy, InvalidRelease, UnsupportedGuard
from verdictree.policy import Category, Policy
from verdictree.releases import repository
from verdictree.releases.calibration import Calibrator, Outcome
from verdictree.releases.release import GRAPH_MODEL, WEIGHTS_FILE, Release
from verdictree.runtime.local_guard import LocalGuard
from verdictree.verdict_tree import compiler
from verdictree.verdict_tree.exploration import Exploration
from verdictree_client.rollout import releases as release_files
from verdictree_export import policy_addition
from verdictree_export.exporter import export_release
from verdictree_export.graph.key_values import KeyValues
from verdictree_export.onnx_file.graph_prefill import Prefill
from verdictree_export.policy_addition import add_policies

pytestmark = pytest.mark.slow

EXPLORATION = Exploration(2, 0.0, 8)
# More labels than the release knew, a longer prefix, another suffix and fewer roles: every open size changes.
ADDED = (
    Policy("wider", "1", tuple(Category(f"S{i}", f"Hazard {'number ' * 4}{i}") for i in range(1, 8))),
    Policy("answers", "1", (Category("K7", "Seven"),), roles=("assistant",)),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Release 1 has one policy; 2 has more, added; 3 is exported with them."""
    checkpoint = str(tiny_guard.write_checkpoint(tmp_path_factory.mktemp("checkpoint"), verdict_strength=1.0))
    path = tmp_path_factory.mktemp("models")
    export_release(checkpoint, "llama-guard-3", [tiny_guard.POLICY], path, exploration=EXPLORATION, max_off_grammar=1.0)
    codes = ("unsafe", *tiny_guard.POLICY.codes)
    tiny_guard.calibrate(path, "tiny", [Outcome(code, Calibrator("platt", 2.0), 0.5, "r", 1, 1) for code in codes])
    add_policies(path, 1, ADDED)
    export_release(
        checkpoint, "llama-guard-3", [tiny_guard.POLICY, *ADDED], path, exploration=EXPLORATION, max_off_grammar=1.0
    )
    return path


def numbers(verdict):
    return [verdict.p_unsafe, verdict.p_safe, *(score.marginal for score in verdict.categories)]


def test_added_policies_answer_as_exported_ones(models):
    """A prefix that the graph computed itself, or a size that tracing had fixed, would change some score."""
    added, exported = (LocalGuard.load(models, number, threads=1) for number in (2, 3))
    requests = [ask(text, name) for text in ("hello", "Check the messages") for name in ("tiny", "wider", "answers")]
    pairs = list(zip(added.classify(requests), exported.classify(requests), strict=True))
    for one, other in pairs:
        assert numbers(one) == pytest.approx(numbers(other), abs=1e-5)
    assert len({tuple(numbers(one)) for one, _ in pairs}) == len(requests)


def test_lists_open_as_the_graph_opens_them(models, tmp_path, monkeypatch):
    """The graph's depths are fixed: labels that are added must not move the first ones into the root trie, or out."""
    checkpoint = str(tiny_guard.write_checkpoint(tmp_path / "checkpoint", verdict_strength=1.0))
    monkeypatch.setattr(compiler, "_LARGEST_SHARED_SUBTREE", -1)
    export_release(
        checkpoint, "llama-guard-3", [tiny_guard.POLICY], tmp_path / "m", exploration=EXPLORATION, max_off_grammar=1.0
    )
    monkeypatch.undo()
    add_policies(tmp_path / "m", 1, ADDED)
    apart, grafted = LocalGuard.load(tmp_path / "m", 2, threads=1), LocalGuard.load(models, 3, threads=1)
    assert apart.release.tree.first_labels_apart and not grafted.release.tree.first_labels_apart
    requests = [ask("hello", "tiny"), ask("hello", "wider"), ask("hello", "answers")]
    for one, other in zip(apart.classify(requests), grafted.classify(requests), strict=True):
        assert numbers(one) == pytest.approx(numbers(other), abs=1e-5)


def test_the_guard_itself_is_shared(models):
    """A copy of the weights for every policy would fill the disk; another default or pin would move traffic."""
    first, second = (models / GRAPH_MODEL / str(n) / WEIGHTS_FILE for n in (1, 2))
    assert first.samefile(second)
    release = Release.load_verified(models, 2)
    assert [one.name for one in release.policies] == ["tiny", "wider", "answers"]
    assert repository.pinned(models) == 1 and len(release.golden) == 3


def test_a_derived_release_can_be_added_to(models):
    """Its files are another release's by hard link, which onnx itself refuses to read."""
    derived = release_files.derive(models, 1, None, {None: 0.3}).number
    added = add_policies(models, derived, ADDED).number
    try:
        guards = [LocalGuard.load(models, number, threads=1) for number in (2, added)]
        one, other = (guard.classify([ask("hello", "wider")])[0] for guard in guards)
        assert numbers(one) == numbers(other)
    finally:
        for number in (added, derived):
            release_files.delete(models, number)


def test_the_source_is_not_touched(models):
    """Triton would load a live release anew whose folder has changed, and stop its requests for seconds."""
    folder = models / GRAPH_MODEL / "1"
    before = folder.stat().st_mtime_ns
    number = add_policies(models, 1, ADDED[1:]).number
    release_files.delete(models, number)
    assert folder.stat().st_mtime_ns == before


def test_calibrations_stay(models):
    """A policy that was calibrated before must not lose its thresholds, nor lend them to the new ones."""
    tiny, wider = LocalGuard.load(models, 2, threads=1).classify([ask("hello"), ask("hello", "wider")])
    assert tiny.calibration == "1.1" and tiny.flagged is not None
    assert wider.calibration is None


def test_a_family_of_questions(tmp_path):
    """Where each category is a prompt of its own, a policy adds several; the longest sets the shape."""
    checkpoint = str(tiny_guard.write_checkpoint(tmp_path / "checkpoint", template=tiny_guard.QUESTION_TEMPLATE))
    two, three = (Policy(f"p{n}", "1", tuple(Category(c, c) for c in ("harm", "bias", "guns")[:n])) for n in (2, 3))
    export_release(checkpoint, "granite-guardian", [two], tmp_path / "models", max_off_grammar=1.0)
    add_policies(tmp_path / "models", 1, [three])
    export_release(checkpoint, "granite-guardian", [two, three], tmp_path / "models", max_off_grammar=1.0)
    added, exported = (
        LocalGuard.load(tmp_path / "models", n, threads=1).classify([ask("hello", "p3"), ask("hello", "p2")])
        for n in (2, 3)
    )
    for one, other in zip(added, exported, strict=True):
        assert numbers(one) == pytest.approx(numbers(other), abs=1e-5)


def test_a_name_that_ends_otherwise(tmp_path):
    """The graph of a release whose labels all go on alike must keep apart those of an added policy that do not."""
    names = [("A", "Acts"), ("B", "Violent"), ("C", "Acts (x)"), ("D", "PII (x)")]
    alike, other = (Policy(f"p{n}", "1", tuple(Category(*one) for one in names[:n]), roles=("user",)) for n in (2, 4))
    checkpoint = str(tiny_guard.write_checkpoint(tmp_path / "c", corpus=["(x),"] * 40, max_position_embeddings=1024))
    export_release(checkpoint, "nemotron", [alike], tmp_path / "models", exploration=EXPLORATION, max_off_grammar=1.0)
    added = add_policies(tmp_path / "models", 1, [other])
    assert (
        len(Release.load_verified(tmp_path / "models", 1).tree.answer_suffixes),
        len(added.tree.answer_suffixes),
    ) == (1, 2)
    exported = export_release(
        checkpoint, "nemotron", [alike, other], tmp_path / "models", exploration=EXPLORATION, max_off_grammar=1.0
    )
    assert exported.tree == added.tree
    guards = [LocalGuard.load(tmp_path / "models", number, threads=1) for number in (2, 3)]
    requests = [Conversation((Message("user", "hello"),), policy=one.name) for one in (alike, other)]
    for one, same in zip(*(guard.classify(requests) for guard in guards), strict=True):
        assert numbers(one) == pytest.approx(numbers(same), rel=1e-3)
        assert one.unexplored == pytest.approx(same.unexplored, rel=1e-3)


def test_what_cannot_be_added_is_refused(models, monkeypatch):
    """A refusal must name the reason and leave the repository as it was."""
    with pytest.raises(InvalidPolicy, match="got 'tiny' 2 times"):
        add_policies(models, 1, [tiny_guard.POLICY])
    with pytest.raises(InvalidRelease, match="release manifest"):
        add_policies(models, 9, ADDED)
    prefill = policy_addition.prefill_by_graph

    def wrong(*arguments):
        return [
            Prefill([KeyValues(one.keys, -one.values) for one in right.key_values], right.log_probs)
            for right in prefill(*arguments)
        ]

    monkeypatch.setattr(policy_addition, "prefill_by_graph", wrong)
    with pytest.raises(UnsupportedGuard, match=r"policy 'wider' within 0.0001 of its whole text's"):
        add_policies(models, 1, ADDED)
    assert repository.releases(models) == (1, 2, 3)
    assert not list(models.glob(".release-*"))
