"""How far a release explores the verdict tree, and what its graph hands over of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from verdictree.verdict_tree.onward import Path
from verdictree.verdict_tree.tree import VerdictTree

LEFT = -1  # stands for the expanded paths of a request that left early
Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class Exploration(msgspec.Struct, frozen=True, rename={"pruning_threshold": "epsilon", "beam_width": "width"}):
    """The limits of the beam search that the graph runs (arXiv 2511.22312, section 3, searches depth-first).

    The root trie, which tells the verdicts' probabilities, is always evaluated. A path, a verdict that opens a list and
    then labels, is expanded only while its probability is at least `pruning_threshold`, it names at most `max_labels`
    labels, and it is among the request's `beam_width` most probable of its length; a verdict whose first labels are
    part of the root trie is no such path. What is cut off is reported as `unexplored`.
    """

    max_labels: int = 3
    pruning_threshold: float = 0.01
    beam_width: int = 8

    def beam_widths(self, tree: VerdictTree) -> tuple[int, ...]:
        """How many paths a request can have expanded at each depth, shortest first; none where nothing is listed."""
        widths = [len(tree.lists)]
        for _ in range(self.max_labels if tree.first else 0):
            widths.append(min(self.beam_width, widths[-1] * len(tree.labels)))
        return tuple(widths if tree.first_labels_apart else widths[1:])

    def trie_sizes(self, tree: VerdictTree) -> tuple[int, ...]:
        """How many nodes are evaluated after each path of a depth: a trie, at last its entry alone."""
        first = (len(tree.first_label_trie),) if tree.first_labels_apart else ()
        return (*first, *[len(tree.continuation_trie)] * (self.max_labels - 1), 1) if tree.first else ()

    def num_nodes(self, tree: VerdictTree) -> int:
        """How many nodes a request has in the graph's outputs: the root trie's, and a trie's for each beam slot."""
        blocks = zip(self.trie_sizes(tree), self.beam_widths(tree), strict=True)
        return len(tree.root_trie) + sum(size * width for size, width in blocks)


@dataclass(frozen=True)
class NodeLogits:
    """The next-token distributions at the nodes of one trie, over the label vocabulary.

    label_logits    (nodes, vocabulary)
    log_normalizer  (nodes,) log Σ exp over the model's full vocabulary
    top_logit       (nodes,) the largest logit over the full vocabulary: where no label token has it, greedy decoding
                    leaves the grammar
    """

    label_logits: Floats
    log_normalizer: Floats
    top_logit: Floats

    @property
    def num_nodes(self) -> int:
        """How many nodes of the trie were evaluated: all, or its entry alone."""
        return len(self.top_logit)

    @cached_property
    def log_probs(self) -> npt.NDArray[np.float64]:
        """log p(token | node), shape (nodes, vocabulary)."""
        return np.asarray(self.label_logits, np.float64) - np.asarray(self.log_normalizer, np.float64)[:, None]


@dataclass(frozen=True)
class Explored:
    """What was evaluated of one request's verdict tree.

    `root` holds the nodes of the root trie, `blocks[path]` those of the trie after `path`. A path of the greatest
    length has node 0 only: whether the verdict ends there.
    """

    root: NodeLogits
    blocks: dict[Path, NodeLogits]


def exit_log_odds(log_normalizer: Floats, expansions: npt.NDArray[np.int32]) -> float | None:
    """The probe's log-odds of a request that left early, of the outputs of one row; None where it went through.

    Such a row has LEFT for every index, and the log-odds for every log-normalizer.
    """
    return float(log_normalizer.flat[0]) if expansions.flat[0] == LEFT else None


def unpack(
    tree: VerdictTree,
    exploration: Exploration,
    label_logits: Floats,
    log_normalizer: Floats,
    top_logit: Floats,
    expansions: npt.NDArray[np.int32],
) -> list[Explored]:
    """Take the graph's dense outputs apart, request by request.

    label_logits    (batch, nodes, vocabulary)
    log_normalizer  (batch, nodes)
    top_logit       (batch, nodes)
    expansions      (batch, beam slots, lengths) the expanded frontier: the indices of each expanded path, filled up
                    with tree.unused; a slot of nothing else was not used. The number of the list is left out where the
                    root trie has its first labels

    `nodes` lists the root trie's, then for each beam slot those of its trie. No request may have left early; see
    `exit_log_odds`.
    """
    unused, widths = tree.unused, exploration.beam_widths(tree)
    sizes = np.repeat(exploration.trie_sizes(tree), widths).tolist()
    starts = np.cumsum([len(tree.root_trie), *sizes])

    def nodes(row: int, part: slice | list[int]) -> NodeLogits:
        return NodeLogits(label_logits[row, part], log_normalizer[row, part], top_logit[row, part])

    def path(indices: npt.NDArray[np.int32]) -> Path:
        used = tuple(int(i) for i in indices if i < unused)
        return used if tree.first_labels_apart else (tree.list_of(used[0]), *used)

    results = []
    for row in range(len(label_logits)):
        blocks: dict[Path, NodeLogits] = {(i,): nodes(row, list(part)) for i, part in enumerate(tree.shared_subtrees)}
        for slot in np.flatnonzero(expansions[row, :, 0] < unused):
            blocks[path(expansions[row, slot])] = nodes(row, slice(starts[slot], starts[slot + 1]))
        results.append(Explored(nodes(row, slice(len(tree.root_trie))), blocks))
    return results
