"""A language model small enough to enumerate: a random next-token distribution after every token sequence."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence

import numpy as np

from verdictree.families.grammar import label_list
from verdictree.verdict_tree.exploration import Explored, NodeLogits
from verdictree.verdict_tree.tree import VerdictTree
from verdictree.verdict_tree.trie import Trie

GRAMMAR = label_list(safe="safe", unsafe="unsafe", list_prefix="\n", separator=",")
END, NOISE = 0, 1  # the end of the turn, and a token that no verdict holds


class WordTokenizer:
    """Greedy longest match over a fixed word list; ids from 2 on."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = sorted(words, key=lambda word: (-len(word), word))
        self.ids = {word: i + 2 for i, word in enumerate(sorted(words))}
        self.size = len(words) + 2

    def __call__(self, text: str) -> list[int]:
        ids = []
        while text:
            word = next(word for word in self.words if text.startswith(word))
            ids.append(self.ids[word])
            text = text[len(word) :]
        return ids


TOKENIZERS = {
    "digits split": (WordTokenizer(["safe", "uns", "afe", "\n", "S", "1", "0", "2", ","]), ("S1", "S10", "S2")),
    "whole labels": (WordTokenizer(["safe", "unsafe", "\n", "S1", "S10", "S2", ","]), ("S1", "S10", "S2")),
    "merged separator": (WordTokenizer(["safe", "unsafe", "\n", "S", ",", ",S", "1", "10", "2"]), ("S1", "S10", "S2")),
    "merged ends": (  # `0,` and `2,` are one token: T0 and S102 have continuation classes of their own
        WordTokenizer(["safe", "uns", "afe", "\n", "S", "T", "1", "0", "0,", "2", "2,", ","]),
        ("S1", "S102", "T0", "T1"),
    ),
    "long names": (WordTokenizer(["safe", "un", "\n", "a", "b", "c", ","]), ("ab", "abc", "ca")),
}


class FakeLM:
    """p(token | sequence), peaked enough that greedy verdicts differ from seed to seed."""

    def __init__(self, size: int, seed: int, favour: dict[int, float] | None = None) -> None:
        self.size, self.seed, self.favour = size, seed, favour or {}
        self.answer: tuple[int, ...] = ()

    def logits(self, sequence: Sequence[int]) -> np.ndarray:
        rng = np.random.default_rng(zlib.crc32(str((self.seed, *sequence)).encode()))
        logits = 2.0 * rng.standard_normal(self.size)
        for token, bonus in self.favour.items():
            logits[token] += bonus
        if len(sequence) < len(self.answer) and self.answer[: len(sequence)] == tuple(sequence):
            logits[self.answer[len(sequence)]] = logits.max() + 0.5
        return logits

    def script(self, answer: Sequence[int]) -> None:
        """Let greedy decoding give this answer."""
        self.answer = tuple(answer)

    def probs(self, sequence: Sequence[int]) -> np.ndarray:
        logits = self.logits(sequence)
        exp = np.exp(logits - logits.max())
        return exp / exp.sum()


def explore(lm: FakeLM, tree: VerdictTree, max_labels: int, epsilon: float = 0.0) -> Explored:
    """What the graph would hand over, node by node."""
    blocks = {}
    for length in range(max_labels + 1):
        named = itertools.product(range(len(tree.labels)), repeat=length)
        for number, labels in itertools.product(range(len(tree.lists)), named):
            path = path_of(tree, labels, number)
            tokens = tree.path_tokens(path)
            parent_live = length == 0 or path[:-1] in blocks
            grafted = length == 0 and not tree.first_labels_apart
            if parent_live and (grafted or sequence_probability(lm, tokens) >= epsilon):
                trie = tree.trie_after(path)
                blocks[path] = _nodes(lm, tree, trie, tokens, len(trie) if length < max_labels else 1)
    return Explored(_nodes(lm, tree, tree.root_trie, (), len(tree.root_trie)), blocks)


def path_of(tree: VerdictTree, labels: Sequence[int], number: int = 0) -> tuple[int, ...]:
    """The path of list `number` that names these labels in this order."""
    starts = (number, *(tree.continuation_class[label] for label in labels[:-1]))
    steps = zip(starts[: len(labels)], labels, strict=True)
    return (number, *(start * len(tree.labels) + label for start, label in steps))


def sequence_probability(lm: FakeLM, tokens: Sequence[int]) -> float:
    return float(np.prod([lm.probs(tokens[:i])[token] for i, token in enumerate(tokens)]))


def _nodes(lm: FakeLM, tree: VerdictTree, trie: Trie, before: Sequence[int], size: int) -> NodeLogits:
    sequences: list[tuple[int, ...]] = [tuple(before)]
    for node in range(1, size):
        sequences.append((*sequences[trie.parents[node]], trie.tokens[node]))
    logits = np.array([lm.logits(sequence) for sequence in sequences])
    return NodeLogits(
        label_logits=logits[:, list(tree.vocabulary)],
        log_normalizer=np.log(np.exp(logits).sum(axis=1)),
        top_logit=logits.max(axis=1),
    )
