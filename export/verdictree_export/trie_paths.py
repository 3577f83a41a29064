"""A trie of the verdict tree as the graph holds it: constants, and the label probabilities they give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verdictree.tree import Tokens, Trie


class Nodes(NamedTuple):
    """Evaluated nodes: label logits (rows, nodes, vocabulary), log-normalizer and top logit (rows, nodes)."""

    label_logits: Tensor
    log_normalizer: Tensor
    top_logit: Tensor


class TriePaths(nn.Module):
    """The constants of a trie and of the label paths through it, as buffers."""

    tokens: Tensor
    depths: Tensor
    attention: Tensor
    path_matrix: Tensor
    ancestors: Tensor
    lengths: Tensor
    last_tokens: Tensor

    def __init__(self, trie: Trie, paths: Sequence[Tokens], vocabulary: Tokens) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.tensor(trie.tokens))
        self.register_buffer("depths", torch.tensor(trie.depths))
        self.register_buffer("attention", torch.from_numpy(trie.visibility()))
        self.register_buffer("path_matrix", torch.from_numpy(trie.path_matrix(paths, vocabulary)).float())
        self.register_buffer("ancestors", torch.from_numpy(trie.ancestors(paths)))
        self.register_buffer("lengths", torch.tensor([len(path) for path in paths]))
        self.register_buffer("last_tokens", torch.tensor([path[-1] for path in paths]))

    def label_log_probs(self, nodes: Nodes) -> Tensor:
        """log p(label | row), shape (rows, labels)."""
        log_probs = nodes.label_logits - nodes.log_normalizer.unsqueeze(-1)
        return torch.matmul(log_probs.flatten(1), self.path_matrix)
