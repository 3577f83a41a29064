"""From next-token distributions to category probabilities (arXiv 2511.22312).

For example, a guard that gives these answers with these probabilities, in the tree that is drawn in `tree`, explored to
paths of at least 0.10 and of two labels (⏎ is a line break):

    safe           0.30
    unsafe⏎S1      0.20
    unsafe⏎S1,S2   0.30
    unsafe⏎S10     0.15
    unsafe⏎S2,S10  0.05

    path               reach  marginal     complete  cut off
    unsafe ⏎ S 1       0.65   0.50 to S1   0.20      0.00
    unsafe ⏎ S 1 0     0.15   0.15 to S10  0.15      0.00
    unsafe ⏎ S 1 ,S 2  0.30   0.30 to S2   0.30      0.00

    marginals: S1 0.50, S10 0.15, S2 0.30; unexplored 0.05, off grammar 0.00

The tokens `unsafe ⏎ S 1` are reached with 0.65, but 0.15 of that goes on to `0` and is S10's. Each path adds what ends
its last label. What is complete ends with the turn; what a path goes on with, longer paths add. S2 was likely enough
nowhere but after S1, so the answer `unsafe⏎S2,S10` is unexplored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verdictree.conversation import Role
from verdictree.verdict_tree.estimates import Array, Estimates
from verdictree.verdict_tree.exploration import Explored
from verdictree.verdict_tree.greedy import follow
from verdictree.verdict_tree.next_labels import NextAfterLabel, NextLabels, Place, path_probabilities
from verdictree.verdict_tree.onward import Path
from verdictree.verdict_tree.tree import VerdictTree


class Marginalizer:
    """Computes the estimates of any number of conversations from one compiled tree.

    A verdict y names label c where c's tokens stand at a label's place and the next token ends them: the first token
    of an answer's suffix (mostly the end of the turn), or of a further label. Where the label's end may merge with what
    follows, c's tokens are those before, its stable prefix, and only the label's own FOLLOW set ends it. The mass of
    all such answers is

        p(c) = Σ_{(c_1 … c_k = c), c not in c_1 … c_{k-1}}  p(c_1 … c_k) · p(suffix or next | c_1 … c_k)

    since whatever follows cannot take c back; the condition counts a label once however often an answer repeats it.
    A verdict that names labels by itself adds its own probability.

    Only an answer that was followed to its end is known to name no other label. Every other one may name any, in a form
    that the grammar has not (`S1, S2` with a space) or by a label that the tree has not; so all of them are within
    `unexplored`, those that are no verdict included.
    """

    def __init__(self, tree: VerdictTree) -> None:
        self._tree = tree
        self._verdicts = tree.root_trie.path_matrix(tree.verdict_tokens, tree.vocabulary)
        self._named = np.array([[label in answer.names for label in tree.labels] for answer in tree.grammar.answers])
        self._after_list = [NextLabels.of(tree, tree.after_list(number)) for number in range(len(tree.lists))]
        self._after_class = [NextAfterLabel.of(tree, tree.after_class(i)) for i in range(len(tree.answer_suffixes))]
        self._ends = [tree.vocabulary.index(token) for token in tree.end_tokens]

    def __call__(self, explored: Explored, role: Role = "user") -> Estimates:
        """The estimates of one conversation whose last message is of this role.

        Source: arXiv 2511.22312; the marginal without its pruning's silent loss, its double counting of repeated
        labels and its confusion of labels that begin alike.
        """
        answers = self._tree.grammar.answers
        asked = [role in answer.roles for answer in answers]
        verdicts = np.where(asked, path_probabilities(explored.root, self._verdicts), 0.0)
        classed = [(answer.verdict_class, float(p)) for answer, p in zip(answers, verdicts, strict=True)]
        masses = _Masses(marginal=verdicts @ self._named)
        self._add_lists(explored, verdicts, masses)
        alone = sum(float(p) for answer, p in zip(answers, verdicts, strict=True) if answer.list_prefix is None)
        masses.complete += alone
        greedy = follow(self._tree, explored, role)
        joint, conditional = np.zeros_like(masses.marginal), np.zeros_like(masses.marginal)
        for step in reversed(greedy.steps):  # reversed: the first place that names a label wins
            joint[step.label], conditional[step.label] = step.joint, step.conditional
        return Estimates(
            class_probabilities={name: sum(p for other, p in classed if other == name) for name, _ in classed},
            marginal=masses.marginal,
            joint=joint,
            conditional=conditional,
            unexplored=max(0.0, 1.0 - masses.complete),
            off_grammar=max(0.0, 1.0 - masses.complete - masses.cut_off),
            greedy=greedy,
        )

    def _add_lists(self, explored: Explored, verdicts: Array, masses: _Masses) -> None:
        """Add what the answers with a list have: walk over all expanded paths, each once, from shorter to longer."""
        pending: list[Place] = []
        for number, answer in enumerate(self._tree.lists):
            path = self._tree.path(number)
            if path in explored.blocks:
                labels, block = self._after_list[number], explored.blocks[path]
                pending.append(Place(path, labels, labels.reach(verdicts[answer], block)))
                masses.complete += float(verdicts[answer] * np.exp(block.log_probs[0, self._ends]).sum())  # no list
            else:
                masses.cut_off += float(verdicts[answer])
        while pending:
            place = pending.pop()
            longer = [(*place.path, place.labels.onward.index_of(i)) for i in range(len(self._tree.labels))]
            expanded = np.array([path in explored.blocks for path in longer])
            masses.cut_off += float(place.ended()[~expanded].clip(min=0.0).sum())
            for label in np.flatnonzero(expanded).tolist():
                named_before = label in self._tree.labels_of(place.path)
                pending += self._add_label(longer[label], place.reach[label], named_before, explored, masses)

    def _add_label(
        self, path: Path, reach: float, named_before: bool, explored: Explored, masses: _Masses
    ) -> list[Place]:
        """Add what the answers have that name the last label of `path`, whose tokens have probability `reach`.

        Returns the place from which longer paths go on; none where the entry of the trie alone was evaluated.
        """
        block, after = explored.blocks[path], self._after_class[self._tree.class_after(path[-1])]
        at_entry = np.exp(block.log_probs[0])
        ended = float(reach * at_entry[after.follow_set].sum())
        if not named_before:
            masses.marginal[self._tree.label_of(path[-1])] += ended
        if block.num_nodes == len(self._tree.continuation_trie) > 1:
            masses.complete += float(reach * path_probabilities(block, after.answer_suffixes).sum())
            return [Place(path, after.labels, after.labels.reach(reach, block))]
        closed = float(reach * at_entry[after.single_tokens].sum())
        masses.complete += closed
        masses.cut_off += ended - closed
        return []


@dataclass
class _Masses:
    """Sums of probability over answers: by label, of those followed to their end, and of those that were cut off."""

    marginal: Array
    complete: float = 0.0
    cut_off: float = 0.0
