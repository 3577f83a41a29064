"""How an answer can go on after a path through the verdict tree."""

from __future__ import annotations

from typing import NamedTuple

from verdictree.verdict_tree.trie import Tokens, Trie

Path = tuple[int, ...]
"""The number of a list, an index into the verdict tree's `first`, then some into its `further`. Make one with
`VerdictTree.path` or `Onward.index_of`, and read one with `VerdictTree.labels_of`."""


class Onward(NamedTuple):
    """How an answer can go on after a path.

    trie             whose nodes tell the probabilities of what follows
    label_paths      the tokens to each label, as the first or the next one, in the labels' order
    first_index      the path index of the first of them; the others follow
    spelled_from     from which of such a path's tokens on the label itself is spelled, not what stands before it
    answer_suffixes  the tokens from the end of the label to the end of the turn; none before a first label
    """

    trie: Trie
    label_paths: tuple[Tokens, ...]
    first_index: int
    spelled_from: int
    answer_suffixes: tuple[Tokens, ...] = ()

    def index_of(self, label: int) -> int:
        """What a path is extended by when this label is named next."""
        return self.first_index + label

    @property
    def follow_set(self) -> Tokens:
        """The tokens that end the label before: those that begin a further label or an answer's suffix."""
        return tuple(sorted({path[0] for path in (*self.label_paths, *self.answer_suffixes)}))
