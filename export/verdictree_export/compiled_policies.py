"""Everything of the graph that a release's policies decide: prompts, verdict tree, and how far it is explored.

None of it is a constant of the traced graph, neither a value nor a size: it lies beside the weights, in a file of its
own. Other policies of the same guard need that file written anew, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from verdictree.exploration import Exploration
from verdictree.release import Prompt
from verdictree.tree import Tokens, Trie, VerdictTree
from verdictree_export.attention import KeyValues
from verdictree_export.prompt_bank import PromptBank
from verdictree_export.trie_paths import IMPOSSIBLE, TriePaths


class CompiledPolicies(nn.Module):
    """The policies of a release as buffers; `key_values[i]` are those of prompt i's prefix, layer by layer.

    `slots_<n>` counts off the paths of n labels that a request can have expanded; `unused` is no path's number. A list's
    word ends in the ending of its list's number.
    """

    vocabulary: Tensor
    unused: Tensor
    log_epsilon: Tensor

    def __init__(
        self,
        prompts: Sequence[Prompt],
        tree: VerdictTree,
        exploration: Exploration,
        key_values: Sequence[Sequence[KeyValues]],
    ) -> None:
        super().__init__()
        self.head = TriePaths(
            trie=tree.head,
            paths=[tree.words[answer] for answer in tree.lists],
            vocabulary=tree.vocabulary,
            origin=[0 for _ in tree.lists],
            ending=list(range(len(tree.lists))),
        )
        self.opening = _label_paths(tree, tree.opening, tree.first)
        self.tail = _label_paths(tree, tree.tail, tree.further)
        self.bank = PromptBank(prompts, self.head, key_values)
        self.register_buffer("vocabulary", torch.tensor(tree.vocabulary))
        self.register_buffer("unused", torch.tensor(tree.unused))
        log_epsilon = math.log(exploration.epsilon) if exploration.epsilon > 0 else IMPOSSIBLE / 2
        self.register_buffer("log_epsilon", torch.tensor(log_epsilon))
        slots = exploration.slots(tree)
        self.num_levels = len(slots)
        for length, width in enumerate(slots):
            self.register_buffer(f"slots_{length}", torch.arange(width))

    def put(self, buffers: Mapping[str, Tensor]) -> None:
        """Exchange buffers by name."""
        for name, value in buffers.items():
            owner, _, attribute = name.rpartition(".")
            setattr(self.get_submodule(owner), attribute, value)

    @property
    def widths(self) -> list[int]:
        """How many paths of 0, 1, 2, … labels a request can have expanded; traced as sizes of what is put in."""
        return [self.get_buffer(f"slots_{length}").shape[0] for length in range(self.num_levels)]

    @property
    def tries(self) -> list[TriePaths]:
        """The trie after each path of 0, 1, 2, … labels."""
        return [self.opening, *[self.tail] * (self.num_levels - 1)][: self.num_levels]


def _label_paths(tree: VerdictTree, trie: Trie, paths: Sequence[Tokens]) -> TriePaths:
    count = len(tree.labels)
    return TriePaths(
        trie=trie,
        paths=paths,
        vocabulary=tree.vocabulary,
        origin=[i // count for i in range(len(paths))],
        ending=[tree.ending[i % count] for i in range(len(paths))],
    )
