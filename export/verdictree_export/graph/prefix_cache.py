"""The prefix KV cache: the constant prompts as the graph holds them, prefixes as a KV cache, suffixes as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from verdictree.releases.prompt import Prompt
from verdictree_export.finite import require_finite
from verdictree_export.graph.key_values import KeyValues
from verdictree_export.graph.trie_paths import TriePaths


def prefill_prefixes(model: Any, prompts: Sequence[Prompt]) -> list[list[KeyValues]]:
    """The keys and values of each prompt's prefix, layer by layer, each (1, key-value heads, tokens, head size).

    A layer with a sliding window has kept its last tokens only; the others, which nothing attends to any more, are 0.
    Raises UnsupportedGuard where the model's next logits are not finite: its graph could not even be traced.
    """
    with torch.inference_mode():
        outputs = [model.get_decoder()(torch.tensor([prompt.prefix_ids]), use_cache=True) for prompt in prompts]
        for output in outputs:
            require_finite(model.get_output_embeddings()(output.last_hidden_state[0, -1]), "the checkpoint")
    lengths, caches = [len(prompt.prefix_ids) for prompt in prompts], [output.past_key_values for output in outputs]
    return [
        [KeyValues(_padded(layer.keys, length), _padded(layer.values, length)) for layer in cache.layers]
        for cache, length in zip(caches, lengths, strict=True)
    ]


def _padded(states: Tensor, length: int) -> Tensor:
    return nn.functional.pad(states, (0, 0, length - states.shape[2], 0))


class SuffixAndRoot(NamedTuple):
    """What stands after the conversation: the suffix, padded on the left, then the root trie's nodes but its entry.

    tokens  (rows, width)
    valid   (rows, width) whether it is no padding
    offset  (rows, width) positions after the conversation's end
    """

    tokens: Tensor
    valid: Tensor
    offset: Tensor


class PrefixCache(nn.Module):
    """The constant prompts: each prefix as keys and values, each suffix followed by the root trie's tokens.

    Prefixes are padded on the right. Suffixes are padded on the left, so that the trie hangs on one column. The
    buffers' names are those of the graph's file, where suffix and root trie are the `tail`.
    """

    prefix_valid: Tensor
    prefix_length: Tensor
    suffix_length: Tensor

    def __init__(self, prompts: Sequence[Prompt], root: TriePaths, key_values: Sequence[Sequence[KeyValues]]) -> None:
        super().__init__()
        prefixes, suffixes = [p.prefix_ids for p in prompts], [p.suffix_ids for p in prompts]
        self.num_layers = len(key_values[0])
        self.register_buffer("prefix_length", torch.tensor([len(prefix) for prefix in prefixes]))
        self.register_buffer("suffix_length", torch.tensor([len(suffix) for suffix in suffixes]))
        width = max(len(prefix) for prefix in prefixes)
        self.register_buffer("prefix_valid", torch.arange(width) < self.prefix_length[:, None])
        self._store(key_values, width)
        suffix_width = max(len(suffix) for suffix in suffixes)
        pads = [suffix_width - len(suffix) for suffix in suffixes]
        nodes = root.tokens[1:].tolist()
        rows = [[0] * pad + list(suffix) + nodes for pad, suffix in zip(pads, suffixes, strict=True)]
        self.register_buffer("tail_tokens", torch.tensor(rows))
        columns = torch.cat([torch.arange(suffix_width), suffix_width - 1 + root.depths[1:]])
        offset = columns - torch.tensor(pads)[:, None]
        self.register_buffer("tail_valid", offset >= 0)
        self.register_buffer("tail_offset", offset.clamp(min=0))

    def _store(self, key_values: Sequence[Sequence[KeyValues]], width: int) -> None:
        for layer, prompts in enumerate(zip(*key_values, strict=True)):
            for name in ("keys", "values"):
                parts = [getattr(prompt, name) for prompt in prompts]
                padded = [nn.functional.pad(part, (0, 0, 0, width - part.shape[2])) for part in parts]
                self.register_buffer(f"{name}_{layer}", torch.cat(padded))

    def key_values(self, prefix_id: Tensor) -> list[list[KeyValues]]:
        """The cached prefix of each request, layer by layer, one segment each."""
        return [
            [KeyValues(self.get_buffer(f"keys_{layer}"), self.get_buffer(f"values_{layer}")).take(prefix_id)]
            for layer in range(self.num_layers)
        ]

    def suffix_and_root(self, prefix_id: Tensor) -> SuffixAndRoot:
        """What stands after the conversation of each request."""
        parts = (self.get_buffer(f"tail_{name}") for name in SuffixAndRoot._fields)
        return SuffixAndRoot(*(part.index_select(0, prefix_id) for part in parts))

    @property
    def suffix_and_root_width(self) -> int:
        """How many tokens stand after a conversation, padding included."""
        return self.get_buffer("tail_tokens").shape[1]
