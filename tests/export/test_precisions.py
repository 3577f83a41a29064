"""Releases of all precisions, from checkpoint to verdicts: blind to neighbours; int8 ones judged, and refused."""

from __future__ import annotations

import stat

import numpy as np
import onnx
import pytest
import tiny_guard

from verdictree.conversation import Conversation, Message
from verdictree.errors import UnsupportedGuard
from verdictree.releases import repository
from verdictree.runtime.local_guard import LocalGuard
from verdictree.verdict_tree.exploration import Exploration
from verdictree_export.exporter import export_release
from verdictree_export.int8.conversion import Example

pytestmark = pytest.mark.slow

WORDS = tuple(
    ["safe", "unsafe", "hello", "check", "the", "messages", "below", "S1", "S2", "why", "how", "last", "agent", "user"]
)
EXPLORATION = Exploration(2, 0.001, 4)


def conversations(count, seed=0):
    rng = np.random.default_rng(seed)
    texts = (" ".join(rng.choice(WORDS, rng.integers(1, 60))) for _ in range(count))
    return [Conversation((Message("user", text),)) for text in texts]


EXAMPLES = [Example(one, ("S1",) if i % 3 else ()) for i, one in enumerate(conversations(140))]


def clear_cases(path):
    """Examples whose labels the guard of release 1 knows: the AUC of random ones is chance, which any digit moves."""
    asked = conversations(300)
    scores = [verdict["S1"].marginal for verdict in LocalGuard.load(path, 1, threads=2).classify(asked)]
    order = np.argsort(scores)
    pairs = zip(order[:70], order[-70:], strict=True)
    return [one for low, high in pairs for one in (Example(asked[low], ()), Example(asked[high], ("S1",)))]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(tiny_guard.write_checkpoint(tmp_path_factory.mktemp("checkpoint"), verdict_strength=2.0))


@pytest.fixture(scope="module")
def models(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    arguments = ("llama-guard-3", [tiny_guard.POLICY], path)
    export_release(checkpoint, *arguments, exploration=EXPLORATION, max_off_grammar=1.0)
    export_release(
        checkpoint,
        *arguments,
        exploration=EXPLORATION,
        precision="int8",
        evaluation=clear_cases(path),
        max_off_grammar=1.0,
    )
    export_release(checkpoint, *arguments, exploration=EXPLORATION, precision="fp16", max_off_grammar=1.0)
    return path


def test_a_release_says_how_far_it_is_from_fp32(models):
    """An analyst must be able to read what 8 bits cost before thresholds are set by the scores."""
    fp32, int8 = (LocalGuard.load(models, number, threads=1) for number in (1, 2))
    assert fp32.release.quantization_quality is None
    found = int8.release.quantization_quality
    assert found is not None and found.num_conversations >= 70 and found.p99_p_unsafe_difference <= 0.02
    assert found.micro_auc is not None and found.micro_auc >= found.reference_micro_auc - 0.003
    asked = conversations(12, seed=1)
    changes = [abs(a.p_unsafe - b.p_unsafe) for a, b in zip(fp32.classify(asked), int8.classify(asked), strict=True)]
    assert 0 < max(changes) < 0.05


@pytest.mark.parametrize("number", [1, 2, 3], ids=["fp32", "int8", "fp16"])
def test_a_batch_changes_not_a_bit(models, number):
    """Sums in another order would show in the last digits, and in int8 before them."""
    guard, rng = LocalGuard.load(models, number, threads=2), np.random.default_rng(2)
    asked = conversations(10, seed=3)
    alone = [guard.classify([one])[0] for one in asked]
    for _ in range(12):
        chosen = rng.permutation(10)[: rng.integers(2, 7)]
        assert guard.classify([asked[i] for i in chosen]) == [alone[i] for i in chosen]


@pytest.mark.parametrize("number", [1, 2, 3], ids=["fp32", "int8", "fp16"])
def test_depths_are_in_branches(models, number):
    """Nothing reads a branch's condition before there are branches: a pass that drops it slows every request."""
    graph = onnx.load(models / f"guard_lm/{number}/model.onnx", load_external_data=False).graph
    assert sum(node.op_type == "If" for node in graph.node) == EXPLORATION.max_labels


@pytest.mark.parametrize("number", [1, 2, 3], ids=["fp32", "int8", "fp16"])
def test_whoever_runs_the_server_can_read_a_release(models, number):
    """A server often runs as another user than the export did; weights that only their owner can read do not load."""
    modes = {path.name: stat.filemode(path.stat().st_mode) for path in models.glob(f"guard_lm/{number}/*.*")}
    assert set(modes) == {"model.onnx", "weights.bin", "policies.bin", "release.json"}
    assert set(modes.values()) == {modes["model.onnx"]}, "that of a file which is simply opened and written"


def test_too_little_to_judge_by_is_refused(checkpoint, tmp_path):
    """A gate of three conversations lets everything through."""
    with pytest.raises(UnsupportedGuard, match=r"expected at least 128 evaluation conversations for int8 .* got 3"):
        export_release(
            checkpoint, "llama-guard-3", [tiny_guard.POLICY], tmp_path, precision="int8", evaluation=EXAMPLES[:3]
        )


def test_a_guard_that_changes_too_much_is_refused(checkpoint, tmp_path):
    """Served, it would flag other conversations than the guard whose thresholds it was given."""
    with pytest.raises(UnsupportedGuard, match=r"within 1e-07 .* by themselves: \w+ \("):
        export_release(
            checkpoint,
            "llama-guard-3",
            [tiny_guard.POLICY],
            tmp_path,
            exploration=EXPLORATION,
            precision="int8",
            evaluation=EXAMPLES,
            max_change=1e-7,
        )
    assert repository.releases(tmp_path) == ()
