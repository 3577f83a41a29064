"""The constant prompts as the graph holds them: every prefix as a KV cache, every suffix as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from verdictree.release import Prompt
from verdictree.tree import Tokens
from verdictree_export.attention import KeyValues
from verdictree_export.trie_paths import TriePaths


class PromptBank(nn.Module):
    """The constant prompts: each prefix as keys and values, each suffix followed by the head trie's tokens.

    Prefixes are padded on the right. Suffixes are padded on the left, so that the trie hangs on one column.
    """

    prefix_valid: Tensor
    prefix_length: Tensor
    tail_tokens: Tensor
    tail_valid: Tensor
    tail_offset: Tensor
    suffix_length: Tensor

    def __init__(self, model: Any, prompts: Sequence[Prompt], head: TriePaths) -> None:
        super().__init__()
        prefixes, suffixes = [p.prefix_ids for p in prompts], [p.suffix_ids for p in prompts]
        self.num_layers = int(model.config.num_hidden_layers)
        self.suffix_width = max(len(suffix) for suffix in suffixes)
        self.register_buffer("prefix_length", torch.tensor([len(prefix) for prefix in prefixes]))
        self.register_buffer("suffix_length", torch.tensor([len(suffix) for suffix in suffixes]))
        width = max(len(prefix) for prefix in prefixes)
        self.register_buffer("prefix_valid", torch.arange(width) < self.prefix_length[:, None])
        self._store_key_values(model, prefixes, width)
        pads = [self.suffix_width - len(suffix) for suffix in suffixes]
        nodes = head.tokens[1:].tolist()
        rows = [[0] * pad + list(suffix) + nodes for pad, suffix in zip(pads, suffixes, strict=True)]
        self.register_buffer("tail_tokens", torch.tensor(rows))
        columns = torch.cat([torch.arange(self.suffix_width), self.suffix_width - 1 + head.depths[1:]])
        offset = columns - torch.tensor(pads)[:, None]
        self.register_buffer("tail_valid", offset >= 0)
        self.register_buffer("tail_offset", offset.clamp(min=0))

    def _store_key_values(self, model: Any, prefixes: Sequence[Tokens], width: int) -> None:
        caches = []
        for prefix in prefixes:
            output = model.get_decoder()(torch.tensor([prefix]), use_cache=True)
            pad = (0, 0, 0, width - len(prefix))
            layers = output.past_key_values.layers
            caches.append([(nn.functional.pad(x.keys, pad), nn.functional.pad(x.values, pad)) for x in layers])
        for layer, pairs in enumerate(zip(*caches, strict=True)):
            self.register_buffer(f"keys_{layer}", torch.cat([keys for keys, _ in pairs]))
            self.register_buffer(f"values_{layer}", torch.cat([values for _, values in pairs]))

    def key_values(self, prefix_id: Tensor) -> list[list[KeyValues]]:
        """The cached prefix of each request, layer by layer, one segment each."""
        return [
            [KeyValues(self.get_buffer(f"keys_{layer}"), self.get_buffer(f"values_{layer}")).take(prefix_id)]
            for layer in range(self.num_layers)
        ]
