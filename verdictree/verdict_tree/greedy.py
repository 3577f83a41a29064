"""The verdict that greedy decoding answers, read off the explored nodes.

For example, in the tree that is drawn in `tree`, for the guard whose answers are listed in `marginals`:

    node  may be chosen  chosen
    root trie
    0     safe unsafe    unsafe
    → unsafe
    first-label trie
    0     ⏎              ⏎
    1     S              S
    2     1 2            1
    3     0 ,S END       ,S
    → ⏎ S 1
    continuation trie
    0     ,S END         ,S
    1     1 2            2
    → ,S 2
    0     ,S END         END

In each trie one path is chosen, token by token. Where a label may be longer (S10 after S1), the tokens that end the
shorter one may be chosen too. The path to S1 ends there; what its end was followed by is chosen again, at the entry of
the next trie.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from verdictree.conversation import Role
from verdictree.verdict_tree.exploration import Explored, NodeLogits
from verdictree.verdict_tree.onward import Onward
from verdictree.verdict_tree.tree import VerdictTree
from verdictree.verdict_tree.trie import Tokens, Trie


@dataclass(frozen=True)
class GreedyStep:
    """One label of the greedy verdict: its joint and conditional estimate (arXiv 2511.22312)."""

    label: int
    joint: float
    conditional: float


@dataclass(frozen=True)
class GreedyPath:
    """The greedy verdict as far as it was followed.

    `answer` is the index of the grammar's answer that it is, None where it is none's; `unsafe` says whether that is an
    unsafe one; `answer_suffix` is the index, among those after the last label, of the suffix by which a list ended,
    None where there is no list or its end was not seen.
    """

    answer: int | None
    unsafe: bool
    steps: tuple[GreedyStep, ...]
    complete: bool
    answer_suffix: int | None = None

    def text(self, tree: VerdictTree) -> str:
        """The answer as the guard would write it, without its prefix; a verdict without a list is not followed on."""
        if self.answer is None:
            return ""
        grammar, answer = tree.grammar, tree.grammar.answers[self.answer]
        listed = [tree.labels[step.label] for step in self.steps] if answer.list_prefix is not None else []
        ended, endings = self.answer_suffix, 1 if grammar.goes_on else len(tree.end_tokens)
        suffix = "" if ended is None else grammar.answer_suffixes[ended // endings]
        return grammar.text(answer, listed).removeprefix(grammar.answer_prefix) + suffix


def follow(tree: VerdictTree, explored: Explored, role: Role = "user") -> GreedyPath:
    """Decode greedily: the most likely token of the full vocabulary at each node, as long as it is a verdict's.

    The joint estimate multiplies the tokens that spell the verdict and the labels, no separators; the conditional one
    is the last token's of the label. Of a label whose end may merge with what follows, only the tokens before count.
    Labels that a verdict names by itself have the verdict's.
    """
    decoder = _Decoder(tree, explored.root)
    asked = [a for a, answer in enumerate(tree.grammar.answers) if role in answer.roles]
    chosen = decoder.choose(tree.root_trie, [tree.verdict_tokens[a] for a in asked])
    if chosen is None:
        return GreedyPath(None, False, (), complete=False)
    answer, tokens = asked[chosen], tree.verdict_tokens[asked[chosen]]
    unsafe = tree.grammar.answers[answer].verdict_class == "unsafe"
    joint = decoder.probability(tree.root_trie, tokens, tree.answer_prefix_length)
    if answer not in tree.lists:
        last = decoder.probability(tree.root_trie, tokens, len(tokens) - 1)
        names = tree.grammar.answers[answer].names
        steps = tuple(GreedyStep(tree.labels.index(name), joint, last) for name in names if name in tree.labels)
        return GreedyPath(answer, unsafe, steps, complete=True)
    return replace(_follow_list(tree, explored, answer, joint), unsafe=unsafe)


def _follow_list(tree: VerdictTree, explored: Explored, answer: int, joint: float) -> GreedyPath:
    """Choose label after label, until a suffix ends the list, no verdict goes on so, or nothing more was explored."""
    path = tree.path(tree.lists.index(answer))
    steps: list[GreedyStep] = []
    while path in explored.blocks:
        onward, decoder = tree.onward(path), _Decoder(tree, explored.blocks[path])
        chosen = decoder.choose_onward(onward)
        if chosen is None or chosen >= len(onward.label_paths):
            suffix = None if chosen is None else chosen - len(onward.label_paths)
            return GreedyPath(answer, False, tuple(steps), complete=suffix is not None, answer_suffix=suffix)
        tokens = onward.label_paths[chosen]
        joint *= decoder.probability(onward.trie, tokens, onward.spelled_from)
        steps.append(GreedyStep(chosen, joint, decoder.probability(onward.trie, tokens, len(tokens) - 1)))
        path = (*path, onward.index_of(chosen))
    return GreedyPath(answer, False, tuple(steps), complete=False)


class _Decoder:
    """Token choices at the evaluated nodes of one trie."""

    def __init__(self, tree: VerdictTree, nodes: NodeLogits) -> None:
        self._tree = tree
        self._column = {token: i for i, token in enumerate(tree.vocabulary)}
        self._nodes = nodes

    def best(self, node: int, allowed: Iterable[int]) -> int | None:
        """The most likely token of the full vocabulary at `node`, or None where it is not among `allowed`."""
        logits = self._nodes.label_logits[node]
        token = max(sorted(allowed), key=lambda token: float(logits[self._column[token]]))
        return token if logits[self._column[token]] >= self._nodes.top_logit[node] else None

    def choose_onward(self, onward: Onward) -> int | None:
        """The index, among label paths and then answer suffixes, that greedy decoding takes; or None.

        Where the entry alone was evaluated, only a suffix of one token can be told.
        """
        paths = (*onward.label_paths, *onward.answer_suffixes)
        if self._nodes.num_nodes == len(onward.trie):
            return self.choose(onward.trie, paths)
        token = self.best(0, onward.follow_set)
        suffixes = [i for i, path in enumerate(paths) if path == (token,) and i >= len(onward.label_paths)]
        return suffixes[0] if suffixes else None

    def choose(self, trie: Trie, paths: Sequence[Tokens]) -> int | None:
        """The index of the path that greedy decoding takes from the entry, or None.

        Only a path to a label begins other paths; those to labels come first, in the labels' order.
        """
        taken: Tokens = ()
        while True:
            longer = {path[len(taken)] for path in paths if path[: len(taken)] == taken and len(path) > len(taken)}
            if not longer:
                return paths.index(taken)
            over: Tokens = ()  # the tokens that say: the label ends here, and is none of the longer ones
            if taken in paths:
                over = self._tree.after_class(self._tree.continuation_class[paths.index(taken)]).follow_set
            token = self.best(trie.node_after(taken), longer.union(over))
            if token is None:
                return None
            if token not in longer:
                return paths.index(taken)
            taken = (*taken, token)

    def probability(self, trie: Trie, path: Tokens, start: int) -> float:
        """The product of the probabilities of the path's tokens from `start` on."""
        steps = list(zip(trie.walk(path), path, strict=True))[start:]
        return float(np.exp(sum(self._nodes.log_probs[node, self._column[token]] for node, token in steps)))
