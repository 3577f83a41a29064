"""From next-token distributions to category probabilities (arXiv 2511.22312)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from verdictree.conversation import Role
from verdictree.families.grammar import Ruling
from verdictree.verdict_tree.exploration import Explored, NodeLogits, Path
from verdictree.verdict_tree.greedy import GreedyPath, GreedyStep, follow
from verdictree.verdict_tree.tree import Tokens, Trie, VerdictTree

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimates:
    """The probabilities of one conversation; arrays have shape (labels,), everything lies in [0, 1].

    rulings            probability that the answer begins with a word that rules so, for each ruling of the grammar
    marginal           lower bound of the probability that the answer names the label, at whatever place
    joint, conditional the two estimates along the greedy answer
    unexplored         probability of the answers that were not followed: true marginal ≤ marginal + unexplored
    off_grammar        probability of the answers that were followed and are no verdict
    """

    rulings: dict[Ruling, float]
    marginal: Array
    joint: Array
    conditional: Array
    unexplored: float
    off_grammar: float
    greedy: GreedyPath

    @property
    def p_safe(self) -> float:
        """Probability that the answer begins with a safe word."""
        return self.rulings["safe"]

    @property
    def p_unsafe(self) -> float:
        """Probability that the answer begins with an unsafe word."""
        return self.rulings["unsafe"]


class Marginalizer:
    """Computes the estimates of any number of conversations from one compiled tree.

    A verdict y names label c where c's tokens stand at a label's place and the next token ends them: the first token
    of a closing (mostly the end of the turn), or of a further label. Where the label's end may merge with what follows,
    c's tokens are those before, its stem, and only what may follow that label ends it. The mass of all such answers is

        p(c) = Σ_{(c_1 … c_k = c), c not in c_1 … c_{k-1}}  p(c_1 … c_k) · p(closing or next | c_1 … c_k)

    since whatever follows cannot take c back; the condition counts a label once however often an answer repeats it.
    A word that names labels by itself adds its own probability.
    """

    def __init__(self, tree: VerdictTree) -> None:
        lists, endings = range(len(tree.lists)), range(len(tree.closings))
        self._tree = tree
        self._words = tree.head.path_matrix(tree.words, tree.vocabulary)
        self._named = np.array([[label in answer.names for label in tree.labels] for answer in tree.grammar.answers])
        self._first = [_Labels.of(tree, tree.opening, tree.first_in(i), i * len(tree.labels)) for i in lists]
        self._after = [_Continuations.of(tree, ending) for ending in endings]

    def __call__(self, explored: Explored, role: Role = "user") -> Estimates:
        """The estimates of one conversation whose last message is of this role.

        Source: arXiv 2511.22312; the marginal without its pruning's silent loss, its double counting of repeated
        labels and its confusion of labels that begin alike.
        """
        answers = self._tree.grammar.answers
        asked = [role in answer.roles for answer in answers]
        words = np.where(asked, _reach(explored.head, self._words), 0.0)
        ruled = [(answer.ruling, float(p)) for answer, p in zip(answers, words, strict=True)]
        rulings = {ruling: sum(p for one, p in ruled if one == ruling) for ruling, _ in ruled}
        marginal = words @ self._named
        complete, unexplored = self._collect(explored, marginal, words)
        complete += sum(float(p) for a, p in zip(answers, words, strict=True) if a.opening is None)
        greedy = follow(self._tree, explored, role)
        joint, conditional = np.zeros_like(marginal), np.zeros_like(marginal)
        for step in reversed(greedy.steps):  # reversed: the first place that names a label wins
            joint[step.label], conditional[step.label] = step.joint, step.conditional
        return Estimates(
            rulings=rulings,
            marginal=marginal,
            joint=joint,
            conditional=conditional,
            unexplored=unexplored,
            off_grammar=max(0.0, 1.0 - complete - unexplored),
            greedy=greedy,
        )

    def _collect(self, explored: Explored, marginal: Array, words: Array) -> tuple[float, float]:
        """Add up `marginal` in place; return the mass of complete lists and of paths not followed."""
        num_labels, complete, unexplored = len(self._tree.labels), 0.0, 0.0
        pending: list[tuple[Path, _Labels, Array]] = []
        for number, (onward, answer) in enumerate(zip(self._first, self._tree.lists, strict=True)):
            if (number,) in explored.blocks:
                pending.append(((number,), onward, onward.reach(words[answer], explored.blocks[number,])))
            else:
                unexplored += float(words[answer])
        while pending:
            path, onward, reach = pending.pop()
            named = {index % num_labels for index in path[1:]}
            expanded = np.array([(*path, onward.start + label) in explored.blocks for label in range(num_labels)])
            unexplored += float((reach - onward.longer @ reach)[~expanded].clip(min=0.0).sum())
            for label in np.flatnonzero(expanded).tolist():
                longer = (*path, onward.start + label)
                block = explored.blocks[longer]
                after, probs = self._after[self._tree.ending[label]], np.exp(block.log_probs[0])
                ended = float(reach[label] * probs[after.terminators].sum())
                if label not in named:
                    marginal[label] += ended
                if len(block.log_probs) == len(self._tree.tail) > 1:
                    complete += float(reach[label] * _reach(block, after.closings).sum())
                    pending.append((longer, after.further, after.further.reach(reach[label], block)))
                else:
                    closed = float(reach[label] * probs[after.ends].sum())
                    complete += closed
                    unexplored += ended - closed
        return complete, unexplored


class _Labels(NamedTuple):
    """The paths to each label, from the prompt or from the end of another one; `start` is the first one's index."""

    start: int
    matrix: Array
    longer: Array

    @classmethod
    def of(cls, tree: VerdictTree, trie: Trie, paths: Sequence[Tokens], start: int) -> _Labels:
        return cls(start, trie.path_matrix(paths, tree.vocabulary), _longer_labels(paths))

    def reach(self, before: float, nodes: NodeLogits) -> Array:
        return before * _reach(nodes, self.matrix)


class _Continuations(NamedTuple):
    """What may follow the labels of one ending.

    `terminators` are the columns of the tokens that end such a label, `ends` of those that close the list at once;
    none where a closing is longer.
    """

    further: _Labels
    closings: Array
    terminators: list[int]
    ends: list[int]

    @classmethod
    def of(cls, tree: VerdictTree, ending: int) -> _Continuations:
        closings = tree.closings[ending]
        ends = sorted({path[0] for path in closings}) if all(len(path) == 1 for path in closings) else []
        return cls(
            further=_Labels.of(tree, tree.tail, tree.further_after(ending), ending * len(tree.labels)),
            closings=tree.tail.path_matrix(closings, tree.vocabulary),
            terminators=[tree.vocabulary.index(token) for token in tree.terminators(ending)],
            ends=[tree.vocabulary.index(token) for token in ends],
        )


def one_by_one(categories: Sequence[Estimates]) -> Estimates:
    """The estimates of one conversation from those of each category, asked by itself: label i is category i.

    The answers to different questions have no joint distribution: P(unsafe) is that of the worst category, a lower
    bound of the probability that any is violated.
    """
    p_unsafe = np.array([one.p_unsafe for one in categories])
    named = np.array([one.greedy.unsafe for one in categories])
    steps = tuple(GreedyStep(int(i), float(p_unsafe[i]), float(p_unsafe[i])) for i in np.flatnonzero(named))
    worst = int(np.argmax(np.where(named, 1.0 + p_unsafe, p_unsafe)))
    return Estimates(
        rulings={"safe": min(one.p_safe for one in categories), "unsafe": float(p_unsafe.max())},
        marginal=p_unsafe,
        joint=np.where(named, p_unsafe, 0.0),
        conditional=np.where(named, p_unsafe, 0.0),
        unexplored=max(one.unexplored for one in categories),
        off_grammar=max(one.off_grammar for one in categories),
        greedy=replace(categories[worst].greedy, steps=steps, complete=all(one.greedy.complete for one in categories)),
    )


def _reach(nodes: NodeLogits, paths: Array) -> Array:
    return np.asarray(np.exp(nodes.log_probs.reshape(-1) @ paths))


def _longer_labels(paths: Sequence[Tokens]) -> Array:
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
