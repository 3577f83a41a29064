"""The exported graph against the model run token by token."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from core.fake_lm import path_of
from transformers import LlamaConfig, LlamaForCausalLM

from verdictree.families.grammar import label_list
from verdictree.releases.prompt import Prompt
from verdictree.verdict_tree.compiler import compile_tree
from verdictree.verdict_tree.exploration import Exploration, unpack
from verdictree_export.graph.compiled_policies import CompiledPolicies
from verdictree_export.graph.guard_graph import GuardGraph
from verdictree_export.graph.prefix_cache import prefill_prefixes
from verdictree_export.prompts.vector_math import settle_vector_math

GRAMMAR = label_list(safe="safe", unsafe="unsafe", list_prefix="\n", separator=",")
WORDS = ["safe", "uns", "afe", "\n", "S", "1", "2", "0,", "0", ",", "T"]
ONE_ENDING, TWO_ENDINGS = ("S1", "S2", "T1"), ("S1", "S2", "T0")  # `0,` is one token
END = 20
PROMPTS = [
    Prompt("p", "user", "", "", "", "", prefix_ids=tuple(range(30, 45)), suffix_ids=(50, 51, 52)),
    Prompt("p", "assistant", "", "", "", "", prefix_ids=tuple(range(45, 57)), suffix_ids=(60, 61)),
]


def encode(text: str) -> list[int]:
    ids = []
    while text:
        index = next(i for i, word in enumerate(WORDS) if text.startswith(word))
        ids.append(index + 1)
        text = text[len(WORDS[index]) :]
    return ids


@pytest.fixture(scope="module")
def model():
    settle_vector_math()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.6,
    )
    return LlamaForCausalLM(config).eval()


def run(graph, conversations, prefixes):
    ids = torch.tensor(list(itertools.chain(*conversations)))
    ends = torch.tensor(np.cumsum([len(c) for c in conversations]), dtype=torch.int32)
    with torch.inference_mode():
        outputs = graph(ids, ends, torch.tensor(prefixes, dtype=torch.int32)[:, None])
    return [output.numpy() for output in outputs[:4]]


def reference(model, tree, prompt, conversation, path):
    """log p(· | node) of the trie after `path`, each node by a run of its own over the whole sequence."""
    before = [*prompt.prefix_ids, *conversation, *prompt.suffix_ids, *tree.path_tokens(path)]
    trie = tree.trie_after(path)
    rows = []
    for node in range(len(trie)):
        own, at = [], node
        while at:
            own.insert(0, trie.tokens[at])
            at = trie.parents[at]
        with torch.inference_mode():
            logits = model(torch.tensor([before + own])).logits[0, -1]
        rows.append(torch.log_softmax(logits, -1)[list(tree.vocabulary)].numpy())
    return np.array(rows)


@pytest.mark.parametrize("first_labels_apart", [False, True])
@pytest.mark.parametrize("labels", [ONE_ENDING, TWO_ENDINGS])
def test_every_explored_node_equals_a_run_of_its_own(model, labels, first_labels_apart):
    """A wrong position, mask, parent or continuation class in tree attention would change some node's distribution."""
    tree = compile_tree(GRAMMAR, labels, encode, [END], first_labels_apart)
    exploration = Exploration(max_labels=3, pruning_threshold=0.0, beam_width=64)
    graph = GuardGraph(model, CompiledPolicies(PROMPTS, tree, exploration, prefill_prefixes(model, PROMPTS)))
    conversations, prefixes = [[11, 12, 13, 14], [15], [16, 17, 18, 19, 21, 22]], [0, 1, 0]
    for row, explored in enumerate(unpack(tree, exploration, *run(graph, conversations, prefixes))):
        named = itertools.chain(*(itertools.product(range(3), repeat=count) for count in range(4)))
        assert set(explored.blocks) == {path_of(tree, one) for one in named}
        for path, block in [((), explored.root), *explored.blocks.items()]:
            expected = reference(model, tree, PROMPTS[prefixes[row]], conversations[row], path)
            np.testing.assert_allclose(block.log_probs, expected[: len(block.log_probs)], atol=1e-4)
