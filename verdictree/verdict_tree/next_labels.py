"""What may come next in an answer, as matrices that turn a trie's node log-probabilities into probabilities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from verdictree.verdict_tree.estimates import Array
from verdictree.verdict_tree.exploration import NodeLogits
from verdictree.verdict_tree.onward import Onward, Path
from verdictree.verdict_tree.tree import VerdictTree
from verdictree.verdict_tree.trie import Tokens


class NextLabels(NamedTuple):
    """The labels that may come next: `matrix` gives their paths' log-probabilities; `longer` as `_longer_labels`."""

    onward: Onward
    matrix: Array
    longer: Array

    @classmethod
    def of(cls, tree: VerdictTree, onward: Onward) -> NextLabels:
        """Those of a tree."""
        paths = onward.label_paths
        return cls(onward, onward.trie.path_matrix(paths, tree.vocabulary), _longer_labels(paths))

    def reach(self, before: float, nodes: NodeLogits) -> Array:
        """(labels,) the probability of the answer up to the last token of each label, ended or not."""
        return before * path_probabilities(nodes, self.matrix)


class Place(NamedTuple):
    """A path, the labels that may come next, and `reach` (labels,), the probability of the answer up to each."""

    path: Path
    labels: NextLabels
    reach: Array

    def ended(self) -> Array:
        """(labels,) the probability that the answer goes to each label and to no longer one that begins alike."""
        return np.asarray(self.reach - self.labels.longer @ self.reach)


class NextAfterLabel(NamedTuple):
    """What may follow the labels of one continuation class.

    `follow_set` are the columns of the tokens that end such a label, `single_tokens` of those that end the list at
    once; none where an answer's suffix is longer.
    """

    labels: NextLabels
    answer_suffixes: Array
    follow_set: list[int]
    single_tokens: list[int]

    @classmethod
    def of(cls, tree: VerdictTree, onward: Onward) -> NextAfterLabel:
        """Those of a tree."""
        suffixes, column = onward.answer_suffixes, tree.vocabulary.index
        ends = sorted({path[0] for path in suffixes}) if all(len(path) == 1 for path in suffixes) else []
        return cls(
            labels=NextLabels.of(tree, onward),
            answer_suffixes=onward.trie.path_matrix(suffixes, tree.vocabulary),
            follow_set=[column(token) for token in onward.follow_set],
            single_tokens=[column(token) for token in ends],
        )


def path_probabilities(nodes: NodeLogits, paths: Array) -> Array:
    """(paths,) the probability of each path through a trie, whose `path_matrix` for them is `paths`."""
    return np.asarray(np.exp(nodes.log_probs.reshape(-1) @ paths))


def _longer_labels(paths: tuple[Tokens, ...]) -> Array:
    """Which labels go on where another ends (S10 after S1), without those that pass through a third in between."""

    def extends(longer: int, shorter: int) -> bool:
        return longer != shorter and paths[longer][: len(paths[shorter])] == paths[shorter]

    labels = range(len(paths))
    matrix = np.zeros((len(paths), len(paths)))
    for shorter in labels:
        for longer in (label for label in labels if extends(label, shorter)):
            between = any(extends(longer, label) and extends(label, shorter) for label in labels)
            matrix[shorter, longer] = 0.0 if between else 1.0
    return matrix
