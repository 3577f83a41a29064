"""The verdict that greedy decoding answers, read off the explored nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from verdictree.conversation import Role
from verdictree.verdict_tree.exploration import Explored, NodeLogits
from verdictree.verdict_tree.tree import Tokens, Trie, VerdictTree


@dataclass(frozen=True)
class GreedyStep:
    """One label of the greedy verdict: its joint and conditional estimate (arXiv 2511.22312)."""

    label: int
    joint: float
    conditional: float


@dataclass(frozen=True)
class GreedyPath:
    """The greedy verdict as far as it was followed.

    `answer` is the index of the grammar's answer that it is, None where it is none's; `unsafe` says whether that rules
    so; `closing` is the index, among those after the last label, of the closing by which a list ended, None where there
    is no list or its end was not seen.
    """

    answer: int | None
    unsafe: bool
    steps: tuple[GreedyStep, ...]
    complete: bool
    closing: int | None = None

    def text(self, tree: VerdictTree) -> str:
        """The answer as the guard would write it, without its lead; a word without a list is not followed further."""
        if self.answer is None:
            return ""
        grammar, answer = tree.grammar, tree.grammar.answers[self.answer]
        listed = [tree.labels[step.label] for step in self.steps] if answer.opening is not None else []
        closing = "" if self.closing is None else grammar.closings[self.closing // len(tree.end_tokens)]
        return grammar.text(answer, listed).removeprefix(grammar.lead) + closing


def follow(tree: VerdictTree, explored: Explored, role: Role = "user") -> GreedyPath:
    """Decode greedily: the most likely token of the full vocabulary at each node, as long as it is a verdict's.

    The joint estimate multiplies the tokens that spell the word and the labels, no separators; the conditional one
    is the last token's of the label. Of a label whose end may merge with what follows, only the tokens before count.
    Labels that a word names by itself have the word's.
    """
    decoder = _Decoder(tree, explored.head)
    asked = [a for a, answer in enumerate(tree.grammar.answers) if role in answer.roles]
    chosen = decoder.choose(tree.head, [tree.words[a] for a in asked])
    if chosen is None:
        return GreedyPath(None, False, (), complete=False)
    answer, word = asked[chosen], tree.words[asked[chosen]]
    unsafe = tree.grammar.answers[answer].ruling == "unsafe"
    joint = decoder.probability(tree.head, word, tree.lead_length)
    if answer not in tree.lists:
        last = decoder.probability(tree.head, word, len(word) - 1)
        names = tree.grammar.answers[answer].names
        steps = tuple(GreedyStep(tree.labels.index(name), joint, last) for name in names if name in tree.labels)
        return GreedyPath(answer, unsafe, steps, complete=True)
    return replace(_follow_list(tree, explored, answer, joint), unsafe=unsafe)


def _follow_list(tree: VerdictTree, explored: Explored, answer: int, joint: float) -> GreedyPath:
    number, num_labels = tree.lists.index(answer), len(tree.labels)
    start, spelling, labels = number * num_labels, tree.first_spelling[number], tree.first_in(number)
    closings: tuple[Tokens, ...] = ()
    steps: list[GreedyStep] = []
    path: tuple[int, ...] = (number,)
    ending = 0
    while True:
        block = explored.blocks.get(path)
        if block is None:
            return GreedyPath(answer, False, tuple(steps), complete=False)
        trie, decoder = tree.trie_after(path), _Decoder(tree, block)
        if len(block.top_logit) < len(trie):
            token = decoder.best(0, tree.terminators(ending))
            closing = closings.index((token,)) if (token,) in closings else None
            return GreedyPath(answer, False, tuple(steps), complete=closing is not None, closing=closing)
        chosen = decoder.choose(trie, (*labels, *closings))
        if chosen is None or chosen >= num_labels:
            closing = None if chosen is None else chosen - num_labels
            return GreedyPath(answer, False, tuple(steps), complete=closing is not None, closing=closing)
        joint *= decoder.probability(trie, labels[chosen], spelling)
        steps.append(GreedyStep(chosen, joint, decoder.probability(trie, labels[chosen], len(labels[chosen]) - 1)))
        path, ending = (*path, start + chosen), tree.ending[chosen]
        closings = tree.closings[ending]
        start, spelling, labels = ending * num_labels, tree.further_spelling[ending], tree.further_after(ending)


class _Decoder:
    """Token choices at the nodes of one trie."""

    def __init__(self, tree: VerdictTree, nodes: NodeLogits) -> None:
        self._tree = tree
        self._column = {token: i for i, token in enumerate(tree.vocabulary)}
        self._nodes = nodes

    def best(self, node: int, allowed: Iterable[int]) -> int | None:
        """The most likely token of the full vocabulary at `node`, or None where it is not among `allowed`."""
        logits = self._nodes.label_logits[node]
        token = max(sorted(allowed), key=lambda token: float(logits[self._column[token]]))
        return token if logits[self._column[token]] >= self._nodes.top_logit[node] else None

    def choose(self, trie: Trie, paths: Sequence[Tokens]) -> int | None:
        """The index of the path that greedy decoding takes from the entry, or None.

        Only a path to a label begins other paths; those to labels come first, in the labels' order.
        """
        taken: Tokens = ()
        while True:
            onward = {path[len(taken)] for path in paths if path[: len(taken)] == taken and len(path) > len(taken)}
            if not onward:
                return paths.index(taken)
            node = trie.walk((*taken, 0))[-1]
            over = self._tree.terminators(self._tree.ending[paths.index(taken)]) if taken in paths else ()
            token = self.best(node, onward.union(over))
            if token is None:
                return None
            if token not in onward:
                return paths.index(taken)
            taken = (*taken, token)

    def probability(self, trie: Trie, path: Tokens, start: int) -> float:
        """The product of the probabilities of the path's tokens from `start` on."""
        steps = list(zip(trie.walk(path), path, strict=True))[start:]
        return float(np.exp(sum(self._nodes.log_probs[node, self._column[token]] for node, token in steps)))
