"""A trie of the verdict tree as the graph holds it: constants, and the path probabilities they give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verdictree.verdict_tree.trie import Tokens, Trie

IMPOSSIBLE = -1e9  # log-probability of a path that was not followed; finite, so that sums of it stay ordered


class Nodes(NamedTuple):
    """Evaluated nodes: label logits (rows, nodes, vocabulary), log-normalizer and top logit (rows, nodes)."""

    label_logits: Tensor
    log_normalizer: Tensor
    top_logit: Tensor

    @classmethod
    def blank(cls, rows: int, nodes: int, vocabulary: int) -> Nodes:
        """Zeros, for nodes that are not evaluated."""
        return cls(torch.zeros(rows, nodes, vocabulary), torch.zeros(rows, nodes), torch.zeros(rows, nodes))


class TriePaths(nn.Module):
    """The constants of a trie and of the label paths through it, as buffers.

    Path i goes on from continuation class `class_before[i]` and leads to class `class_after[i]`; `masked` (classes,
    paths) keeps what goes on from a class to its own paths. The buffers' names are those of the graph's file.
    """

    tokens: Tensor
    depths: Tensor
    attention: Tensor
    path_matrix: Tensor
    ancestors: Tensor
    lengths: Tensor
    last_tokens: Tensor

    def __init__(
        self,
        trie: Trie,
        paths: Sequence[Tokens],
        vocabulary: Tokens,
        *,
        class_before: Sequence[int],
        class_after: Sequence[int],
    ) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.tensor(trie.tokens))
        self.register_buffer("depths", torch.tensor(trie.depths))
        self.register_buffer("attention", torch.from_numpy(trie.visibility()))
        self.register_buffer("path_matrix", torch.from_numpy(trie.path_matrix(paths, vocabulary)).float())
        self.register_buffer("ancestors", torch.from_numpy(trie.ancestors(paths)))
        self.register_buffer("lengths", torch.tensor([len(path) for path in paths]))
        self.register_buffer("last_tokens", torch.tensor([path[-1] for path in paths]))
        self.register_buffer("ending", torch.tensor(class_after, dtype=torch.long))
        own = torch.tensor(class_before) == torch.arange(max(class_before, default=0) + 1).unsqueeze(1)
        self.register_buffer("barred", torch.where(own, 0.0, IMPOSSIBLE))

    @property
    def class_after(self) -> Tensor:
        """(paths,) the continuation class to which each path leads."""
        return self.get_buffer("ending")

    @property
    def masked(self) -> Tensor:
        """(classes, paths) added to log-probabilities: 0 where a path goes on from a class, else `IMPOSSIBLE`."""
        return self.get_buffer("barred")

    def path_log_probs(self, nodes: Nodes, class_before: Tensor) -> Tensor:
        """log p(path | row), shape (rows, paths), where row i goes on from continuation class `class_before[i]`."""
        log_probs = nodes.label_logits - nodes.log_normalizer.unsqueeze(-1)
        masked = self.masked.index_select(0, class_before)
        return torch.matmul(log_probs.flatten(1), self.path_matrix) + masked
