"""Releases of all precisions, from checkpoint to verdicts: blind to neighbours; int8 ones judged, and refused."""

from __future__ import annotations

import stat

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import tiny_guard
from transformers import Gemma2Config, GraniteConfig

from verdictree.conversation import Conversation, Message
from verdictree.errors import InvalidRelease, UnsupportedGuard
from verdictree.releases import repository
from verdictree.releases.release import Release
from verdictree.runtime.local_guard import LocalGuard
from verdictree.runtime.tokenization import load_tokenizer
from verdictree.verdict_tree.exploration import Exploration
from verdictree_export.exporter import export_release
from verdictree_export.int8.conversion import Example
from verdictree_export.onnx_file.graph_session import GraphSession

pytestmark = pytest.mark.slow

WORDS = tuple(
    ["safe", "unsafe", "hello", "check", "the", "messages", "below", "S1", "S2", "why", "how", "last", "agent", "user"]
)
BF16 = 4
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
    for half in ("fp16", "bf16"):
        export_release(checkpoint, *arguments, exploration=EXPLORATION, precision=half, max_off_grammar=1.0)
    return path


def opened(models, number):
    """A release, one in bf16 as the export tries it: ONNX Runtime computes that on no CPU."""
    if number != BF16:
        return LocalGuard.load(models, number, threads=2)
    tokenizer = load_tokenizer(models / f"guard_tokenizer/{number}")
    graph = GraphSession(models / f"guard_lm/{number}/model.onnx")
    return LocalGuard(Release.load_verified(models, number), tokenizer, graph.run)


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


@pytest.mark.parametrize("number", [1, 2, 3, BF16], ids=["fp32", "int8", "fp16", "bf16"])
def test_a_batch_changes_not_a_bit(models, number):
    """Sums in another order would show in the last digits, and in int8 before them."""
    guard, rng = opened(models, number), np.random.default_rng(2)
    asked = conversations(10, seed=3)
    alone = [guard.classify([one])[0] for one in asked]
    for _ in range(12):
        chosen = rng.permutation(10)[: rng.integers(2, 7)]
        assert guard.classify([asked[i] for i in chosen]) == [alone[i] for i in chosen]


@pytest.mark.parametrize("number", [1, 2, 3, BF16], ids=["fp32", "int8", "fp16", "bf16"])
def test_depths_are_in_branches(models, number):
    """Nothing reads a branch's condition before there are branches: a pass that drops it slows every request."""
    graph = onnx.load(models / f"guard_lm/{number}/model.onnx", load_external_data=False).graph
    assert sum(node.op_type == "If" for node in graph.node) == EXPLORATION.max_labels


@pytest.mark.parametrize("number", [1, 2, 3, BF16], ids=["fp32", "int8", "fp16", "bf16"])
def test_whoever_runs_the_server_can_read_a_release(models, number):
    """A server often runs as another user than the export did; weights that only their owner can read do not load."""
    modes = {path.name: stat.filemode(path.stat().st_mode) for path in models.glob(f"guard_lm/{number}/*.*")}
    assert set(modes) == {"model.onnx", "weights.bin", "policies.bin", "release.json"}
    assert set(modes.values()) == {modes["model.onnx"]}, "that of a file which is simply opened and written"


@pytest.mark.parametrize(("number", "most"), [(3, 2e-3), (BF16, 1e-2)], ids=["fp16", "bf16"])
def test_half_precision_judges_like_fp32(models, number, most):
    """An export that says how far it is, and is that far, is all that a GPU's operator has before the first request."""
    fp32, half = LocalGuard.load(models, 1, threads=2), opened(models, number)
    found = half.release.quantization_quality
    assert found is not None and found.num_conversations >= 4 and found.p99_p_unsafe_difference <= 0.01
    asked = conversations(24, seed=5)
    changes = [
        max(abs(a - b) for a, b in zip(numbers(one), numbers(other), strict=True))
        for one, other in zip(fp32.classify(asked), half.classify(asked), strict=True)
    ]
    assert 0 < max(changes) < most


def numbers(verdict):
    return [verdict.p_unsafe, *(score.marginal for score in verdict.categories)]


@pytest.mark.parametrize("number", [3, BF16], ids=["fp16", "bf16"])
def test_only_the_layers_are_in_half_precision(models, number):
    """Logits of 32 to 64 are rounded to 0.03 in fp16 and 0.25 in bf16: the head's product is to be fp32."""
    graph = onnx.load(models / f"guard_lm/{number}/model.onnx", load_external_data=False).graph
    kind = {3: onnx.TensorProto.FLOAT16, BF16: onnx.TensorProto.BFLOAT16}[number]
    assert {value.type.tensor_type.elem_type for value in graph.output} == {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.INT32,
    }
    large = [one for one in graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
    assert {one.data_type for one in large if "policies." not in one.name and len(one.dims) == 2} == {kind}
    makers = {name: node for node in graph.node for name in node.output}
    (softmax,) = [node for node in graph.node if node.op_type == "LogSoftmax"]
    node = softmax
    while node.op_type != "MatMul":
        node = makers[node.input[0]]
    # In bf16 the head reads the residual stream, which is fp32 anyway: only its weight is widened.
    casts = [makers[name] for name in (node.input if number == 3 else node.input[1:])]
    assert {one.op_type for one in casts} == {"Cast"}
    assert {attribute.i for one in casts for attribute in one.attribute} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize(
    ("config", "options"),
    [(GraniteConfig, {"logits_scaling": 2.0}), (Gemma2Config, {"head_dim": 8, "final_logit_softcapping": 5.0})],
    ids=["granite", "gemma 2"],
)
def test_logits_that_are_scaled_are_fp32(tmp_path, config, options):
    """ONNX Runtime fuses the scale with the head's product, which is another operator then."""
    checkpoint = str(tiny_guard.write_checkpoint(tmp_path / "checkpoint", config, **options))
    export_release(checkpoint, "llama-guard-3", [tiny_guard.POLICY], tmp_path, precision="fp16", max_off_grammar=1.0)
    session = onnxruntime.InferenceSession(tmp_path / "guard_lm/1/model.onnx", providers=["CPUExecutionProvider"])
    assert {one.type for one in session.get_outputs()} == {"tensor(float)", "tensor(int32)"}


def test_numbers_too_large_for_fp16_are_refused_there_and_not_in_bf16(tmp_path):
    """Gemma's activations exceed 65,504: served in fp16 each verdict would be NaN."""
    checkpoint = tiny_guard.write_checkpoint(tmp_path / "checkpoint", verdict_strength=2.0)
    weights = safetensors.torch.load_file(checkpoint / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"] *= 3e5
    safetensors.torch.save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    arguments = (str(checkpoint), "llama-guard-3", [tiny_guard.POLICY], tmp_path / "models")
    with pytest.raises(UnsupportedGuard, match="too large for the precision: export it in fp32 or bf16"):
        export_release(*arguments, precision="fp16", max_off_grammar=1.0)
    export_release(*arguments, precision="bf16", max_off_grammar=1.0, max_change=1.0)


def test_a_half_precision_that_changes_too_much_is_refused(checkpoint, tmp_path):
    """Rows of the operator's own decide, as for int8."""
    with pytest.raises(UnsupportedGuard, match=r"within 1e-09.* got \S+ on 30 conversations; export in fp32"):
        export_release(
            checkpoint,
            "llama-guard-3",
            [tiny_guard.POLICY],
            tmp_path,
            exploration=EXPLORATION,
            precision="bf16",
            evaluation=[Example(one) for one in conversations(30, seed=6)],
            max_change=1e-9,
        )
    assert repository.releases(tmp_path) == ()


def test_bf16_on_a_cpu_is_refused_with_what_to_do(models):
    """ONNX Runtime's own words are that a node without a name is not implemented."""
    with pytest.raises(InvalidRelease, match=r"bf16, which ONNX Runtime computes on a GPU only; .*fp16"):
        LocalGuard.load(models, BF16)


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
