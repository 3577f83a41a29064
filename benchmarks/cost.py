"""What one request makes the machine compute: tokens, and multiplications in linear layers.

Computed tokens of a request = for each question that it is asked with (one, but for guards that judge one category at a
    time) its conversation's + the suffix's + the root trie's nodes after its entry
    + for each expanded path of labels, and each verdict whose first labels are evaluated apart, its trie's nodes, or
    one where the path has the greatest length.
The entry of the root trie is a token that was counted before it, the suffix's last one; that of a path is its last
token. Operations = 2 · (computed tokens · Σ K·N over one token's linear layers
    − tokens that are no nodes · Σ K·N over those of the last block that only nodes pass
    + evaluated nodes · hidden size · vocabulary size); attention and all else is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from verdictree.releases.release import Release


@dataclass(frozen=True)
class LinearShape:
    """One kind of linear layer: (rows, inputs) × (inputs, outputs), `count` times in the model."""

    name: str
    inputs: int
    outputs: int
    count: int


@dataclass(frozen=True)
class ModelShape:
    """The linear layers of a Llama-like model, and the LM head.

    Every token passes the layers but for `last`, those of the last block beside key and value: only nodes pass these.
    """

    layers: tuple[LinearShape, ...]
    last: tuple[LinearShape, ...]
    lm_head: LinearShape

    @property
    def multiplications_per_token(self) -> int:
        """Σ inputs · outputs over the layers, without the LM head."""
        return _multiplications(self.layers)


def model_shape(config: Any) -> ModelShape:
    """The shapes of a Hugging Face Llama configuration; equal shapes of one block are one entry."""
    hidden, inner, blocks = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    head_size = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = config.num_attention_heads * head_size, config.num_key_value_heads * head_size
    layers = (
        LinearShape("query", hidden, queries, blocks),
        LinearShape("key, value", hidden, keys, 2 * blocks),
        LinearShape("attention output", queries, hidden, blocks),
        LinearShape("gate, up", hidden, inner, 2 * blocks),
        LinearShape("down", inner, hidden, blocks),
    )
    last = tuple(replace(layer, count=layer.count // blocks) for layer in layers if layer.name != "key, value")
    return ModelShape(layers, last, LinearShape("LM head", hidden, config.vocab_size, 1))


def _multiplications(layers: Iterable[LinearShape]) -> int:
    return sum(layer.inputs * layer.outputs * layer.count for layer in layers)


@dataclass(frozen=True)
class Cost:
    """What a number of requests made the graph compute; sums add with `+`. `expanded_paths` are those of labels."""

    requests: int = 0
    conversation_tokens: int = 0
    expanded_paths: int = 0
    computed_tokens: int = 0
    nodes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))

    def operations(self, shape: ModelShape) -> int:
        """Multiplications and additions in linear layers."""
        others = self.computed_tokens - self.nodes
        return 2 * (
            self.computed_tokens * _multiplications(shape.layers)
            - others * _multiplications(shape.last)
            + self.nodes * _multiplications([shape.lm_head])
        )


def of_batch(release: Release, conversation_tokens: int, expansions: npt.NDArray[np.int32]) -> Cost:
    """The cost of one batch: `conversation_tokens` over all that it asks, `expansions` (batch, slots, lengths)."""
    tree, sizes = release.tree, release.exploration.trie_sizes(release.tree)
    lengths = (expansions < tree.unused).sum(axis=2)
    paths = [int((lengths == length).sum()) for length in range(1, len(sizes) + 1)]
    block_tokens = sum(number * size for number, size in zip(paths, sizes, strict=True))
    asked = len(expansions) * release.num_questions
    # Every request's suffix is filled up to the longest of the release's prompts.
    suffix = max(len(prompt.suffix_ids) for prompt in release.prompts)
    return Cost(
        requests=len(expansions),
        conversation_tokens=conversation_tokens,
        expanded_paths=sum(paths[1:] if tree.first_labels_apart else paths),
        computed_tokens=conversation_tokens + asked * (suffix + len(tree.root_trie) - 1) + block_tokens,
        nodes=asked * len(tree.root_trie) + block_tokens,
    )
