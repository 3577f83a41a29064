"""A trie of the verdict tree as the graph holds it: constants, and the path probabilities they give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verdictree.verdict_tree.tree import Tokens, Trie

IMPOSSIBLE = -1e9  # log-probability of a path that was not followed; finite, so that sums of it stay ordered


class Nodes(NamedTuple):
    """Evaluated nodes: label logits (rows, nodes, vocabulary), log-normalizer and top logit (rows, nodes)."""

    label_logits: Tensor
    log_normalizer: Tensor
    top_logit: Tensor


class TriePaths(nn.Module):
    """The constants of a trie and of the label paths through it, as buffers.

    Path i goes on from ending `origin[i]` and leads to ending `ending[i]`; `barred` (endings, paths) keeps what goes
    on from an ending to its own paths.
    """

    tokens: Tensor
    depths: Tensor
    attention: Tensor
    path_matrix: Tensor
    ancestors: Tensor
    lengths: Tensor
    last_tokens: Tensor
    ending: Tensor
    barred: Tensor

    def __init__(
        self, trie: Trie, paths: Sequence[Tokens], vocabulary: Tokens, *, origin: Sequence[int], ending: Sequence[int]
    ) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.tensor(trie.tokens))
        self.register_buffer("depths", torch.tensor(trie.depths))
        self.register_buffer("attention", torch.from_numpy(trie.visibility()))
        self.register_buffer("path_matrix", torch.from_numpy(trie.path_matrix(paths, vocabulary)).float())
        self.register_buffer("ancestors", torch.from_numpy(trie.ancestors(paths)))
        self.register_buffer("lengths", torch.tensor([len(path) for path in paths]))
        self.register_buffer("last_tokens", torch.tensor([path[-1] for path in paths]))
        self.register_buffer("ending", torch.tensor(ending, dtype=torch.long))
        own = torch.tensor(origin) == torch.arange(max(origin, default=0) + 1).unsqueeze(1)
        self.register_buffer("barred", torch.where(own, 0.0, IMPOSSIBLE))

    def path_log_probs(self, nodes: Nodes, ending: Tensor) -> Tensor:
        """log p(path | row), shape (rows, paths), where row i goes on from ending `ending[i]`."""
        log_probs = nodes.label_logits - nodes.log_normalizer.unsqueeze(-1)
        barred = self.barred.index_select(0, ending)
        return torch.matmul(log_probs.flatten(1), self.path_matrix) + barred
