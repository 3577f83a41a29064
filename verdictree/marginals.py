"""From next-token distributions to category probabilities (arXiv 2511.22312)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verdictree.exploration import Explored, NodeLogits, Path
from verdictree.greedy import GreedyPath, follow
from verdictree.tree import VerdictTree

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimates:
    """The probabilities of one conversation; arrays have shape (labels,), everything lies in [0, 1].

    p_safe, p_unsafe   probability that the answer begins with the safe, the unsafe word
    marginal           lower bound of the probability that the answer names the label, at whatever place
    joint, conditional the two estimates along the greedy answer
    unexplored         probability of the answers that were not followed: true marginal ≤ marginal + unexplored
    off_grammar        probability of the answers that were followed and are no verdict
    """

    p_safe: float
    p_unsafe: float
    marginal: Array
    joint: Array
    conditional: Array
    unexplored: float
    off_grammar: float
    greedy: GreedyPath


class Marginalizer:
    """Computes the estimates of any number of conversations from one compiled tree.

    A verdict y names label c where c's tokens stand at a label's place and the next token ends them: the end of the
    turn, or the first token of a further label. The mass of all such answers is

        p(c) = Σ_{(c_1 … c_k = c), c not in c_1 … c_{k-1}}  p(c_1 … c_k) · (p(end | c_1 … c_k) + p(next | c_1 … c_k))

    since whatever follows cannot take c back; the condition counts a label once however often an answer repeats it.
    """

    def __init__(self, tree: VerdictTree) -> None:
        column = {token: i for i, token in enumerate(tree.vocabulary)}
        self._tree = tree
        self._first = tree.head.path_matrix(tree.first, tree.vocabulary)
        self._further = tree.tail.path_matrix(tree.further, tree.vocabulary)
        self._words = tree.head.path_matrix([tree.safe, tree.unsafe], tree.vocabulary)
        self._end_columns = [column[token] for token in tree.end_tokens]
        self._next_columns = [column[token] for token in tree.continuations]
        self._longer = _longer_labels(tree.further)

    def __call__(self, explored: Explored) -> Estimates:
        """The estimates of one conversation.

        Source: arXiv 2511.22312; the marginal without its pruning's silent loss, its double counting of repeated
        labels and its confusion of labels that begin alike.
        """
        p_safe, p_unsafe = _reach(explored.head, self._words)
        marginal = np.zeros(len(self._tree.labels))
        complete, unexplored = self._collect(explored, marginal)
        greedy = follow(self._tree, explored)
        joint, conditional = np.zeros_like(marginal), np.zeros_like(marginal)
        for step in reversed(greedy.steps):  # reversed: the first place that names a label wins
            joint[step.label], conditional[step.label] = step.joint, step.conditional
        return Estimates(
            p_safe=float(p_safe),
            p_unsafe=float(p_unsafe),
            marginal=marginal,
            joint=joint,
            conditional=conditional,
            unexplored=unexplored,
            off_grammar=max(0.0, 1.0 - float(p_safe) - complete - unexplored),
            greedy=greedy,
        )

    def _collect(self, explored: Explored, marginal: Array) -> tuple[float, float]:
        """Add up `marginal` in place; return the mass of complete unsafe verdicts and of paths not followed."""
        complete = unexplored = 0.0
        pending: list[tuple[Path, Array]] = [((), _reach(explored.head, self._first))]
        while pending:
            path, reach = pending.pop()
            expanded = np.array([(*path, label) in explored.blocks for label in range(len(reach))])
            unexplored += float((reach - self._longer @ reach)[~expanded].clip(min=0.0).sum())
            for label in np.flatnonzero(expanded).tolist():
                block = explored.blocks[(*path, label)]
                probs = np.exp(block.log_probs[0])
                ends = float(reach[label] * probs[self._end_columns].sum())
                goes_on = float(reach[label] * probs[self._next_columns].sum())
                complete += ends
                if label not in path:
                    marginal[label] += ends + goes_on
                if len(block.log_probs) == len(self._tree.tail) > 1:
                    pending.append(((*path, label), reach[label] * _reach(block, self._further)))
                else:
                    unexplored += goes_on
        return complete, unexplored


def _reach(nodes: NodeLogits, paths: Array) -> Array:
    return np.asarray(np.exp(nodes.log_probs.reshape(-1) @ paths))


def _longer_labels(paths: tuple[tuple[int, ...], ...]) -> Array:
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
