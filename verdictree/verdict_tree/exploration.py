"""How far a release explores the verdict tree, and what its graph hands over of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from verdictree.verdict_tree.tree import VerdictTree

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Path = tuple[int, ...]  # the number of a list, an index into the verdict tree's `first`, then some into its `further`


class Exploration(msgspec.Struct, frozen=True):
    """The limits of the breadth-first search that the graph runs (arXiv 2511.22312, section 3, searches depth-first).

    The head, which tells the words' probabilities, is always evaluated. A path, a word that opens a list and then
    labels, is expanded only while its probability is at least `epsilon`, it names at most `max_labels` labels, and it
    is among the request's `width` most probable of its length; a word whose opening is part of the head is no such
    path. What is cut off is reported as `unexplored`.
    """

    max_labels: int = 3
    epsilon: float = 0.01
    width: int = 8

    def slots(self, tree: VerdictTree) -> tuple[int, ...]:
        """How many paths of each length, shortest first, a request can have expanded; none where nothing is listed."""
        slots = [len(tree.lists)]
        for _ in range(self.max_labels if tree.first else 0):
            slots.append(min(self.width, slots[-1] * len(tree.labels)))
        return tuple(slots if tree.opens_apart else slots[1:])

    def sizes(self, tree: VerdictTree) -> tuple[int, ...]:
        """How many nodes are evaluated after each path of such a length: a trie, at last its entry alone."""
        opening = (len(tree.opening),) if tree.opens_apart else ()
        return (*opening, *[len(tree.tail)] * (self.max_labels - 1), 1) if tree.first else ()


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

    @cached_property
    def log_probs(self) -> npt.NDArray[np.float64]:
        """log p(token | node), shape (nodes, vocabulary)."""
        return np.asarray(self.label_logits, np.float64) - np.asarray(self.log_normalizer, np.float64)[:, None]


@dataclass(frozen=True)
class Explored:
    """What was evaluated of one request's verdict tree.

    `blocks[path]` holds the nodes of the trie after `path`. A path of the greatest length has node 0 only: whether the
    verdict ends there.
    """

    head: NodeLogits
    blocks: dict[Path, NodeLogits]


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
    expansions      (batch, slots, lengths) the indices of each expanded path, filled up with tree.unused; a slot of
                    nothing else was not used. The number of the list is left out where the head has its opening

    `nodes` lists the head's, then for each slot those of its trie.
    """
    unused, slots = tree.unused, exploration.slots(tree)
    sizes = np.repeat(exploration.sizes(tree), slots).tolist()
    starts = np.cumsum([len(tree.head), *sizes])

    def nodes(row: int, part: slice | list[int]) -> NodeLogits:
        return NodeLogits(label_logits[row, part], log_normalizer[row, part], top_logit[row, part])

    def path(indices: npt.NDArray[np.int32]) -> Path:
        used = tuple(int(i) for i in indices if i < unused)
        return used if tree.opens_apart else (used[0] // len(tree.labels), *used)

    results = []
    for row in range(len(label_logits)):
        blocks: dict[Path, NodeLogits] = {(i,): nodes(row, list(places)) for i, places in enumerate(tree.grafts)}
        for slot in np.flatnonzero(expansions[row, :, 0] < unused):
            blocks[path(expansions[row, slot])] = nodes(row, slice(starts[slot], starts[slot + 1]))
        results.append(Explored(nodes(row, slice(len(tree.head))), blocks))
    return results
