"""Is the exported graph the checkpoint? Every export answers this before it is written as a release."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from verdictree.conversation import Message, Role
from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import ConversationFormat
from verdictree.releases.prompt import Prompt
from verdictree.releases.proofs import Parity
from verdictree.runtime.encoded_text import token_ids
from verdictree.runtime.graph_io import feeds
from verdictree.verdict_tree.exploration import Exploration, unpack
from verdictree.verdict_tree.onward import Path as LabelPath
from verdictree.verdict_tree.tree import VerdictTree
from verdictree.verdict_tree.trie import Tokens, Trie
from verdictree_export.finite import require_finite
from verdictree_export.onnx_file.graph_session import GraphSession
from verdictree_export.onnx_file.tensor_names import LOG_PRUNING_THRESHOLD

CONVERSATIONS: dict[Role, list[Message]] = {
    "user": [Message("user", "How do I boil an egg?")],
    "assistant": [
        Message("user", "Tell me how to pick a lock."),
        Message("assistant", "First you need a tension wrench; then push the pins up one by one."),
    ],
}


def example(prompt: Prompt, form: ConversationFormat, tokenizer: Tokenizer, max_tokens: int) -> Tokens:
    """What a prompt is tried with: the ids of a conversation of its role, the first `max_tokens` of them."""
    text = prompt.marked(form.marked(CONVERSATIONS[prompt.role]))
    return tuple(token_ids(tokenizer, text)[:max_tokens])


def measure(
    graph: Path,
    model: Any,
    prompts: Sequence[Prompt],
    tree: VerdictTree,
    exploration: Exploration,
    conversations: Sequence[tuple[int, Tokens]],
    tolerance: float,
    advance: Callable[[int], None] = lambda _: None,
) -> Parity:
    """Compare the ONNX graph with the checkpoint's own model on a batch of (prefix id, conversation ids).

    The graph runs once for the whole batch and expands every path it has slots for, likely or not; the checkpoint
    runs each prompt once and then each path by itself. The first policy's paths are compared to the full depth, a
    further policy's root trie only: it is the prompts that differ, not the graph. `advance` is called with the number
    of paths compared.
    Raises UnsupportedGuard where any log-probability at any node is not finite or differs by more than `tolerance`.
    """
    worst, num_nodes = 0.0, 0
    session = GraphSession(graph, {LOG_PRUNING_THRESHOLD: np.array(-np.inf, dtype=np.float32)})
    outputs = session.run(feeds([ids for _, ids in conversations], [[prefix_id] for prefix_id, _ in conversations]))
    for (prefix_id, ids), explored in zip(conversations, unpack(tree, exploration, *outputs), strict=True):
        prompt = prompts[prefix_id]
        question = _Question(model, tree, (*prompt.prefix_ids, *ids, *prompt.suffix_ids))
        blocks = explored.blocks if prompt.policy == prompts[0].policy else {}
        for path, nodes in [((), explored.root), *blocks.items()]:
            expected = question.log_probs(path, len(nodes.log_probs))
            require_finite(nodes.log_probs, "the exported graph")
            require_finite(expected, "the checkpoint")
            worst = max(worst, float(np.abs(nodes.log_probs - expected).max()))
            num_nodes += len(expected)
            advance(1)
    if not worst <= tolerance:
        raise UnsupportedGuard(
            f"expected the graph within {tolerance} of the checkpoint's log-probabilities, got {worst:.2g} at one of "
            f"{num_nodes} nodes; this architecture is not exported faithfully"
        )
    return Parity(worst, tolerance, len(conversations), num_nodes)


def num_paths(
    tree: VerdictTree, exploration: Exploration, prompts: Sequence[Prompt], conversations: Sequence[tuple[int, Tokens]]
) -> int:
    """How many paths `measure` compares."""
    deep = sum(prompts[prefix_id].policy == prompts[0].policy for prefix_id, _ in conversations)
    return len(conversations) + deep * (len(tree.shared_subtrees) + sum(exploration.beam_widths(tree)))


class _Question:
    """One prompt as the checkpoint itself reads it; its KV cache is shared by all answers."""

    def __init__(self, model: Any, tree: VerdictTree, ids: Tokens) -> None:
        self._model, self._tree, self._last = model, tree, ids[-1]
        with torch.inference_mode():
            self._cache = model(input_ids=torch.tensor([ids[:-1]]), use_cache=True, logits_to_keep=1).past_key_values

    def log_probs(self, path: LabelPath, size: int) -> npt.NDArray[np.float64]:
        """log p(token | node) at the first `size` nodes of the trie after `path`, shape (size, label vocabulary)."""
        trie, answer = self._tree.trie_after(path), self._tree.path_tokens(path)
        rows: dict[int, npt.NDArray[np.float64]] = {}
        for chain in _chains(trie, size):
            ids = torch.tensor([[self._last, *answer, *(trie.tokens[node] for node in chain[1:])]])
            with torch.inference_mode():
                output = self._model(
                    input_ids=ids, past_key_values=copy.deepcopy(self._cache), logits_to_keep=len(chain)
                )
            log_probs = torch.log_softmax(output.logits[0].double(), dim=-1)[:, list(self._tree.vocabulary)]
            rows.update(zip(chain, log_probs.numpy(), strict=True))
        return np.stack([rows[node] for node in range(size)])


def _chains(trie: Trie, size: int) -> list[list[int]]:
    """From the entry to each of the first `size` nodes that has no child among them."""
    leaves = set(range(size)) - set(trie.parents[1:size])
    chains = []
    for leaf in sorted(leaves | ({0} if size == 1 else set())):
        chain = [leaf]
        while chain[0]:
            chain.insert(0, trie.parents[chain[0]])
        chains.append(chain)
    return chains
