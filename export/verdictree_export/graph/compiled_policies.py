"""Everything of the graph that a release's policies decide: prompts, verdict tree, and how far it is explored.

None of it is a constant of the traced graph, neither a value nor a size: it lies beside the weights, in a file of its
own. Other policies of the same guard need that file written anew, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from verdictree.releases.release import Prompt
from verdictree.verdict_tree.exploration import Exploration
from verdictree.verdict_tree.tree import VerdictTree
from verdictree_export.graph.attention import KeyValues
from verdictree_export.graph.prompt_bank import PromptBank
from verdictree_export.graph.trie_paths import IMPOSSIBLE, TriePaths


class CompiledPolicies(nn.Module):
    """The policies of a release as buffers; `key_values[i]` are those of prompt i's prefix, layer by layer.

    `slots_<n>` counts off the paths that a request can have expanded at level n, `tries` are what is evaluated after
    those of each level; `unused` is no path's number. A list's word, as a path, has the number of its list as ending.
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
        count, number = len(tree.labels), len(tree.first)
        after_first = [tree.ending[i % count] for i in range(number)]
        if tree.opens_apart:
            lists = range(len(tree.lists))
            words = [tree.verdict_tokens((i,)) for i in lists]
            self.head = TriePaths(tree.head, words, tree.vocabulary, origin=[0] * len(words), ending=lists)
            of_list = [i // count for i in range(number)]
            self.opening = TriePaths(tree.opening, tree.first, tree.vocabulary, origin=of_list, ending=after_first)
            openings = [self.opening]
        else:
            first = [tree.verdict_tokens((i // count, i)) for i in range(number)]
            self.head = TriePaths(tree.head, first, tree.vocabulary, origin=[0] * number, ending=after_first)
            openings = []
        further = range(len(tree.further))
        self.tail = TriePaths(
            tree.tail,
            tree.further,
            tree.vocabulary,
            origin=[i // count for i in further],
            ending=[tree.ending[i % count] for i in further],
        )
        self.bank = PromptBank(prompts, self.head, key_values)
        self.register_buffer("vocabulary", torch.tensor(tree.vocabulary))
        self.register_buffer("unused", torch.tensor(tree.unused))
        log_epsilon = math.log(exploration.epsilon) if exploration.epsilon > 0 else IMPOSSIBLE / 2
        self.register_buffer("log_epsilon", torch.tensor(log_epsilon))
        slots = exploration.slots(tree)
        self.tries = [*openings, *[self.tail] * (len(slots) - len(openings))]
        for level, width in enumerate(slots):
            self.register_buffer(f"slots_{level}", torch.arange(width))

    def put(self, buffers: Mapping[str, Tensor]) -> None:
        """Exchange buffers by name."""
        for name, value in buffers.items():
            owner, _, attribute = name.rpartition(".")
            setattr(self.get_submodule(owner), attribute, value)

    @property
    def widths(self) -> list[int]:
        """How many paths a request can have expanded at each level; traced as sizes of what is put in."""
        return [self.get_buffer(f"slots_{level}").shape[0] for level in range(len(self.tries))]
