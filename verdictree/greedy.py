"""The verdict that greedy decoding answers, read off the explored nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from verdictree.exploration import Explored, NodeLogits
from verdictree.tree import Tokens, Trie, VerdictTree


@dataclass(frozen=True)
class GreedyStep:
    """One label of the greedy verdict: its joint and conditional estimate (arXiv 2511.22312)."""

    label: int
    joint: float
    conditional: float


@dataclass(frozen=True)
class GreedyPath:
    """The greedy verdict as far as it was followed; `unsafe` is None where not even its first word is a verdict's."""

    unsafe: bool | None
    steps: tuple[GreedyStep, ...]
    complete: bool

    def text(self, tree: VerdictTree) -> str:
        """The answer as the guard would write it, without its lead."""
        if self.unsafe is None:
            return ""
        if not self.unsafe:
            return tree.grammar.safe
        answer = tree.grammar.unsafe_answer([tree.labels[step.label] for step in self.steps])
        return answer.removeprefix(tree.grammar.lead)


def follow(tree: VerdictTree, explored: Explored) -> GreedyPath:
    """Decode greedily: the most likely token of the full vocabulary at each node, as long as it is a verdict's.

    The joint estimate multiplies the tokens that spell `unsafe` and the labels, no separators; the conditional one
    is the last token's of the label.
    """
    decoder = _Decoder(tree, explored.head)
    word = decoder.choose(tree.head, [tree.safe, tree.unsafe])
    if word is None or word == 0:
        return GreedyPath(None if word is None else False, (), complete=word == 0)
    joint = decoder.probability(tree.head, tree.unsafe, tree.unsafe_spelling)
    trie, paths, spelling = tree.head, tree.first, tree.first_spelling
    steps: list[GreedyStep] = []
    while True:
        label = decoder.choose(trie, paths, begun=tree.unsafe if not steps else ())
        if label is None:
            return GreedyPath(True, tuple(steps), complete=False)
        joint *= decoder.probability(trie, paths[label], spelling)
        steps.append(GreedyStep(label, joint, decoder.probability(trie, paths[label], len(paths[label]) - 1)))
        block = explored.blocks.get(tuple(step.label for step in steps))
        if block is None:
            return GreedyPath(True, tuple(steps), complete=False)
        decoder = _Decoder(tree, block)
        token = decoder.best(0, {*tree.end_tokens, *tree.continuations})
        if token is None or token in tree.end_tokens or len(block.top_logit) < len(tree.tail):
            return GreedyPath(True, tuple(steps), complete=token in tree.end_tokens)
        trie, paths, spelling = tree.tail, tree.further, tree.further_spelling


class _Decoder:
    """Token choices at the nodes of one trie."""

    def __init__(self, tree: VerdictTree, nodes: NodeLogits) -> None:
        self._terminators = {*tree.end_tokens, *tree.continuations}
        self._column = {token: i for i, token in enumerate(tree.vocabulary)}
        self._nodes = nodes

    def best(self, node: int, allowed: Iterable[int]) -> int | None:
        """The most likely token of the full vocabulary at `node`, or None where it is not among `allowed`."""
        logits = self._nodes.label_logits[node]
        token = max(sorted(allowed), key=lambda token: float(logits[self._column[token]]))
        return token if logits[self._column[token]] >= self._nodes.top_logit[node] else None

    def choose(self, trie: Trie, paths: Sequence[Tokens], begun: Tokens = ()) -> int | None:
        """The index of the path that greedy decoding takes from the entry, after the tokens `begun`, or None."""
        taken = begun
        while True:
            onward = {path[len(taken)] for path in paths if path[: len(taken)] == taken and len(path) > len(taken)}
            if not onward:
                return paths.index(taken)
            arrived = taken in paths
            node = trie.walk((*taken, 0))[-1]
            token = self.best(node, onward | self._terminators if arrived else onward)
            if token is None:
                return None
            if token not in onward:
                return paths.index(taken)
            taken = (*taken, token)

    def probability(self, trie: Trie, path: Tokens, start: int) -> float:
        """The product of the probabilities of the path's tokens from `start` on."""
        steps = list(zip(trie.walk(path), path, strict=True))[start:]
        return float(np.exp(sum(self._nodes.log_probs[node, self._column[token]] for node, token in steps)))
