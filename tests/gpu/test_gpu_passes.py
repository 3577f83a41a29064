"""What a pass asks of a GPU: ONNX Runtime's own CUDA provider over stub libraries, which launch and compute nothing.

`make gpu-check` fetches the provider, builds the stubs, runs this, and prints what was counted.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny_guard
from onnx import helper
from recorded_pass import LIBRARIES, Batch, RecordedPass, run
from transformers import Gemma2Config, GraniteConfig, LlamaConfig, MistralConfig, Qwen3Config

from verdictree_export.exporter import export_release
from verdictree_export.onnx_file import branches
from verdictree_export.tolerances import PRECISIONS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (LIBRARIES / "libcudnn.so.9").exists(), reason="needs what `make gpu-check` fetches"),
]

SAFE, ONE, THREE = Batch(8, 5), Batch(8, 5, (1,)), Batch(8, 5, (3, 2, 2))
MOST_WAITS, MOST_WAITS_A_DEPTH = 5, 3
FLOATING = [name for name, precision in PRECISIONS.items() if not precision.is_quantized]


@dataclass(frozen=True)
class Architecture:
    config: Any
    options: dict[str, Any] = field(default_factory=dict)


ARCHITECTURES = {
    "llama": Architecture(LlamaConfig),
    "qwen 3": Architecture(Qwen3Config, {"head_dim": 8}),
    "mistral, sliding window": Architecture(MistralConfig, {"sliding_window": 24, "head_dim": 8}),
    "gemma 2, soft-capped": Architecture(
        Gemma2Config, {"head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0}
    ),
    "granite": Architecture(GraniteConfig, {"attention_multiplier": 0.4, "logits_scaling": 2.0}),
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    @functools.cache
    def export(architecture: str, precision: str, layers: int) -> Path:
        folder, kind = tmp_path_factory.mktemp("guard"), ARCHITECTURES[architecture]
        checkpoint = tiny_guard.write_checkpoint(
            folder / "checkpoint", kind.config, num_hidden_layers=layers, **kind.options
        )
        arguments = (str(checkpoint), "llama-guard-3", [tiny_guard.POLICY], folder)
        export_release(*arguments, precision=precision, max_off_grammar=1.0)
        return folder / "guard_lm/1/model.onnx"

    return export


def require_the_same_for_every_depth(shallow: list[RecordedPass], deep: list[RecordedPass]) -> None:
    """Passes of a guard of two layers and of the same with four: what may not grow with the layers."""
    for few, many in zip(shallow, deep, strict=True):
        assert many.blocking_points == few.blocking_points, "each layer waits for the card"
        assert many.copies_to_host == few.copies_to_host, "each layer copies to the host"
        assert len(many.cpu_nodes) == len(few.cpu_nodes), "each layer computes on the CPU"


@pytest.mark.parametrize("precision", FLOATING)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_pass_waits_for_the_card_a_fixed_number_of_times(graph, architecture, precision, counted):
    """A copy to the host in each layer costs more than all that the card computes for a small batch."""
    batches = [SAFE, ONE, Batch(8, 5, (3, 2)), THREE]
    shallow, deep = (run(graph(architecture, precision, layers), batches) for layers in (2, 4))
    require_the_same_for_every_depth(shallow, deep)
    waits = [one.blocking_points for one in deep]
    assert waits[0] <= MOST_WAITS
    assert all(more - fewer <= MOST_WAITS_A_DEPTH for fewer, more in itertools.pairwise(waits))
    a_layer = [(many.launches - few.launches) / 2 for few, many in zip(shallow, deep, strict=True)]
    counted(
        architecture, precision, waits, [one.launches for one in shallow], a_layer, [len(one.cpu_nodes) for one in deep]
    )


@pytest.mark.parametrize("precision", FLOATING)
def test_every_batch_runs(graph, precision):
    """All safe, one path live in a full batch, a single request, a long one: no shape may be refused."""
    sizes = [Batch(size, tokens, live) for size in (1, 2, 32) for tokens in (1, 70) for live in ((), (1,), (1, 1, 1))]
    for one in run(graph("llama", precision, 2), sizes):
        assert one.launches and one.blocking_points <= MOST_WAITS + 3 * MOST_WAITS_A_DEPTH


def test_a_sum_over_no_paths_would_be_noticed(graph, tmp_path):
    """The form that this replaced failed under CUDA for every batch without a live path."""
    source = graph("llama", "fp32", 2)
    model = onnx.load(source)
    nodes = {output: node for node in model.graph.node for output in node.output}
    count = nodes[next(node for node in model.graph.node if node.op_type == "If").input[0]].input[0]
    shape = nodes[count].input[0]
    model.graph.node.remove(nodes[count])
    ones = helper.make_node("ConstantOfShape", [shape], ["ones"], value=helper.make_tensor("one", 7, [1], [1]))
    at = list(model.graph.node).index(nodes[shape]) + 1
    model.graph.node.insert(at, ones)
    model.graph.node.insert(at + 1, helper.make_node("ReduceSum", ["ones"], [count], keepdims=0))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(RuntimeError, match="Can't reduce on dim with value of 0"):
        run(tmp_path / "model.onnx", [SAFE])


def test_sizes_from_outside_a_branch_would_be_noticed(tmp_path, monkeypatch):
    """The form that this replaced copied every size in a branch back from the card, more than are answered here."""
    monkeypatch.setattr(branches, "with_own_sizes", lambda nodes, known, place: list(nodes))
    checkpoint = str(tiny_guard.write_checkpoint(tmp_path / "checkpoint"))
    export_release(checkpoint, "llama-guard-3", [tiny_guard.POLICY], tmp_path, max_off_grammar=1.0)
    with pytest.raises(RuntimeError):
        run(tmp_path / "guard_lm/1/model.onnx", [THREE])
