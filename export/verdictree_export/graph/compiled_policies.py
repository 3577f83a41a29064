"""Everything of the graph that a release's policies decide: prompts, verdict tree, and how far it is explored.

None of it is a constant of the traced graph, neither a value nor a size: it lies beside the weights, in a file of its
own. Other policies of the same guard need that file written anew, nothing else.

For example, the labels `Hate` and `Sexual (minor)` in the tokens of Llama 3, which merges the bracket with what follows
(⏎ is a line break, ␣ a space). The search begins with the root trie's paths, of class 0:

    first labels in the root trie
                       path                       nodes passed  class before  class after
    root trie          unsafe ⏎ H ate             0 1 2 3       0             0
                       unsafe ⏎ Sex ual ␣( minor  0 1 2 4 5 6   0             1
    continuation trie  , ␣Hate                    0 2           0             0
                       , ␣Sexual ␣( minor         0 2 4 6       0             1
                       ), ␣Hate                   0 3           1             0
                       ), ␣Sexual ␣( minor        0 3 5 7       1             1

    first labels apart
                       path                 nodes passed  class before  class after
    root trie          unsafe               0             0             0
    first-label trie   ⏎ H ate              0 1 2         0             0
                       ⏎ Sex ual ␣( minor   0 1 3 4 5     0             1
    continuation trie  , ␣Hate              0 2           0             0
                       , ␣Sexual ␣( minor   0 2 4 6       0             1
                       ), ␣Hate             0 3           1             0
                       ), ␣Sexual ␣( minor  0 3 5 7       1             1

Where first labels are apart, the path `unsafe` has the number of its list, 0, in place of a continuation class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from verdictree.releases.prompt import Prompt
from verdictree.verdict_tree.exploration import Exploration
from verdictree.verdict_tree.tree import VerdictTree
from verdictree_export.graph.exit_probe import ExitProbe
from verdictree_export.graph.key_values import KeyValues
from verdictree_export.graph.prefix_cache import PrefixCache
from verdictree_export.graph.trie_paths import IMPOSSIBLE, TriePaths


class CompiledPolicies(nn.Module):
    """The policies of a release as buffers; `key_values[i]` are those of prompt i's prefix, layer by layer.

    The paths of a search depth lead through one trie and are followed by the next: `root_trie`, then those of `tries`.
    `slots_<n>` counts off the paths that a request can have expanded at depth n; `unused` is no path's number. The
    buffers' names are those of the graph's file.
    """

    vocabulary: Tensor
    unused: Tensor

    def __init__(
        self,
        prompts: Sequence[Prompt],
        tree: VerdictTree,
        exploration: Exploration,
        key_values: Sequence[Sequence[KeyValues]],
        probe: ExitProbe | None = None,
    ) -> None:
        """`probe` is the early exit's, of a graph that has one."""
        super().__init__()
        root = root_paths(tree)
        self.add_module("head", root)
        first = [first_label_paths(tree)] if tree.first_labels_apart else []
        for trie in first:
            self.add_module("opening", trie)
        further = further_label_paths(tree)
        self.add_module("tail", further)
        self.add_module("bank", PrefixCache(prompts, root, key_values))
        self.register_buffer("vocabulary", torch.tensor(tree.vocabulary))
        self.register_buffer("unused", torch.tensor(tree.unused))
        threshold = exploration.pruning_threshold
        self.register_buffer("log_epsilon", torch.tensor(math.log(threshold) if threshold > 0 else IMPOSSIBLE / 2))
        if probe is not None:
            self.add_module("exit", probe)
        beam_widths = exploration.beam_widths(tree)
        self.tries = [*first, *[further] * (len(beam_widths) - len(first))]
        for depth, width in enumerate(beam_widths):
            self.register_buffer(f"slots_{depth}", torch.arange(width))

    def put(self, buffers: Mapping[str, Tensor]) -> None:
        """Exchange buffers by name."""
        for name, value in buffers.items():
            owner, _, attribute = name.rpartition(".")
            setattr(self.get_submodule(owner), attribute, value)

    @property
    def root_trie(self) -> TriePaths:
        """The trie that is evaluated for every request."""
        return cast(TriePaths, self.get_submodule("head"))

    @property
    def prefix_cache(self) -> PrefixCache:
        """The prompts."""
        return cast(PrefixCache, self.get_submodule("bank"))

    @property
    def exit_probe(self) -> ExitProbe:
        """That of the early exit; AttributeError where there is none."""
        return cast(ExitProbe, self.get_submodule("exit"))

    def prompt(self, prefix_id: Tensor) -> Tensor:
        """(rows,) the prompts that are meant by these numbers; see `ExitProbe.prompt`."""
        return self.exit_probe.prompt(prefix_id) if "exit" in self._modules else prefix_id

    @property
    def log_pruning_threshold(self) -> Tensor:
        """The least log-probability of a path that is expanded."""
        return self.get_buffer("log_epsilon")

    @property
    def beam_widths(self) -> list[int]:
        """How many paths a request can have expanded at each depth; traced as sizes of what is put in."""
        return [self.get_buffer(f"slots_{depth}").shape[0] for depth in range(len(self.tries))]


def root_paths(tree: VerdictTree) -> TriePaths:
    """The root trie, with the paths that a search begins with.

    Where first labels are evaluated apart, these are the verdicts that open a list; what goes on from one is told by
    the number of its list, as if that were a continuation class. Else they are the first labels.
    """
    if tree.first_labels_apart:
        lists = range(len(tree.lists))
        paths, class_after = [tree.path_tokens((number,)) for number in lists], list(lists)
    else:
        indices = range(len(tree.first))
        paths = [tree.path_tokens((tree.list_of(i), i)) for i in indices]
        class_after = [tree.class_after(i) for i in indices]
    return TriePaths(tree.root_trie, paths, tree.vocabulary, class_before=[0] * len(paths), class_after=class_after)


def first_label_paths(tree: VerdictTree) -> TriePaths:
    """The first-label trie, with the paths from each list's verdict to its first labels."""
    indices = range(len(tree.first))
    return TriePaths(
        tree.first_label_trie,
        tree.first,
        tree.vocabulary,
        class_before=[tree.list_of(i) for i in indices],
        class_after=[tree.class_after(i) for i in indices],
    )


def further_label_paths(tree: VerdictTree) -> TriePaths:
    """The continuation trie, with the paths from the end of a label to the next."""
    indices = range(len(tree.further))
    return TriePaths(
        tree.continuation_trie,
        tree.further,
        tree.vocabulary,
        class_before=[tree.class_before(i) for i in indices],
        class_after=[tree.class_after(i) for i in indices],
    )
