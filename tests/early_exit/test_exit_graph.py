"""Who leaves the graph changes nothing for those that stay."""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime
import pytest
import torch
from exit_guard import LAYER, conversations
from hypothesis import given
from hypothesis import strategies as st

from verdictree.releases.release import GRAPH_FILE, GRAPH_MODEL
from verdictree.runtime.graph_io import OUTPUTS
from verdictree.runtime.local_guard import LocalGuard
from verdictree.runtime.tokenization import batch_feeds
from verdictree.verdict_tree.exploration import LEFT
from verdictree_export.onnx_file.graph_session import GraphSession
from verdictree_export.onnx_file.tensor_names import EXIT_THRESHOLD

pytestmark = pytest.mark.slow
SHOWN = [*conversations(24, 7), *conversations(24, 8, "assistant")]


@pytest.fixture(scope="module")
def guards(pair):
    return LocalGuard.load(pair.path, 1, threads=1), LocalGuard.load(pair.path, 2, threads=1)


def left(outputs) -> np.ndarray:
    return outputs[3].reshape(len(outputs[3]), -1)[:, 0] == LEFT


def test_some_leave_and_some_stay(guards):
    early, _ = guards
    marks = [left(early.infer([early.tokenize(one)]))[0] for one in SHOWN]
    assert 5 < sum(marks) < len(marks) - 5


@pytest.mark.hypothesis
@given(st.lists(st.sampled_from(range(len(SHOWN))), min_size=1, max_size=6))
def test_those_that_stay_are_bit_by_bit_those_without_an_exit(guards, numbers):
    """Alone and in a batch of any mixture, of which all, some or none may leave."""
    early, plain = guards
    asked = [SHOWN[number] for number in numbers]
    outputs = early.infer([early.tokenize(one) for one in asked])
    expected = plain.infer([plain.tokenize(one) for one in asked])
    stays = ~left(outputs)
    for output, whole in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(output[stays], whole[stays])
    alone = [left(early.infer([early.tokenize(one)]))[0] for one in asked]
    assert left(outputs).tolist() == alone


def test_in_full_nobody_leaves(guards):
    """With `exact` the outputs are those of the release without an exit."""
    import msgspec

    early, plain = guards
    for one in SHOWN[:12]:
        outputs = early.infer([early.tokenize(msgspec.structs.replace(one, exact=True))])
        for output, whole in zip(outputs, plain.infer([plain.tokenize(one)]), strict=True):
            np.testing.assert_array_equal(output, whole)


def test_a_probe_that_is_no_number_lets_nobody_leave(pair, guards):
    early, _ = guards
    graph = pair.path / GRAPH_MODEL / "1" / GRAPH_FILE
    prompts = len(early.release.prompts)
    session = GraphSession(graph, {EXIT_THRESHOLD: np.full(prompts, np.nan, dtype=np.float32)})
    for one in SHOWN[:6]:
        assert not left(session.run(batch_feeds([early.tokenize(one)])))[0]


def test_layers_after_the_exit_are_not_run_where_all_leave(pair, guards, tmp_path):
    """Their nodes do not appear in a profile of a run in which everyone leaves."""
    early, _ = guards
    graph = pair.path / GRAPH_MODEL / "1" / GRAPH_FILE

    def nodes(asked) -> list[str]:
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "run")
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        session.run(OUTPUTS, batch_feeds([early.tokenize(one) for one in asked]))
        import json

        with open(session.end_profiling()) as file:
            return [event["name"] for event in json.load(file)]

    marks = [left(early.infer([early.tokenize(one)]))[0] for one in SHOWN]
    leaving = [one for one, mark in zip(SHOWN, marks, strict=True) if mark]
    ran = nodes(leaving[:3])
    assert any(f"layers.{LAYER - 1}/" in name for name in ran)
    assert not any(f"layers.{layer}/" in name for layer in range(LAYER + 1, 5) for name in ran)
    staying = [one for one, mark in zip(SHOWN, marks, strict=True) if not mark]
    assert any("layers.4/" in name for name in nodes(staying[:1]))


def test_the_torch_module_does_the_same(guards):
    """The drawing in `graph.early_exit`, by a module with random weights: the second of two requests leaves."""
    from export.test_graph import END, GRAMMAR, ONE_ENDING, PROMPTS, encode
    from transformers import LlamaConfig, LlamaForCausalLM

    from verdictree.verdict_tree.compiler import compile_tree
    from verdictree.verdict_tree.exploration import Exploration
    from verdictree_export.graph.compiled_policies import CompiledPolicies
    from verdictree_export.graph.exit_probe import ExitProbe
    from verdictree_export.graph.guard_graph import GuardGraph
    from verdictree_export.graph.prefix_cache import prefill_prefixes

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=4, initializer_range=0.6)).eval()
    tree = compile_tree(GRAMMAR, ONE_ENDING, encode, [END], False)
    limits = Exploration(max_labels=3, pruning_threshold=0.0, beam_width=8)
    parts = (PROMPTS, tree, limits, prefill_prefixes(model, PROMPTS))
    probe = ExitProbe(torch.zeros(2, 64), torch.tensor([1.0, -1.0]), torch.zeros(2))
    early = GuardGraph(model, CompiledPolicies(*parts, probe), exit_layer=2)
    asked = [[11, 12, 13, 14], [15] * 70, [16, 17], [18, 19]]
    ids = torch.tensor(list(itertools.chain(*asked)))
    ends = torch.tensor(np.cumsum([len(one) for one in asked]), dtype=torch.int32)

    def run(graph, prefixes):
        with torch.inference_mode():
            return graph(ids, ends, torch.tensor(prefixes, dtype=torch.int32)[:, None])[:4]

    whole = run(GuardGraph(model, CompiledPolicies(*parts)), [0, 1, 1, 0])
    outputs = run(early, [0, 1, 3, 0])  # of the third it is asked in full
    marks = [True, False, True, True]
    assert (outputs[3][:, 0, 0] != LEFT).tolist() == marks
    assert outputs[1][1].unique().tolist() == [-1.0]  # the log-odds
    for output, other in zip(outputs, whole, strict=True):
        torch.testing.assert_close(output[marks], other[marks], atol=1e-5, rtol=0)
