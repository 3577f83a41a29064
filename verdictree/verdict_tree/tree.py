"""The verdict tree: every answer of a grammar as token paths, compiled once with the model's own tokenizer.

After a label the answer either ends or goes on to the next label, and how it goes on depends on nothing but how that
label ends. So the infinite tree is three small tries: the root trie leads from the prompt to the verdicts, the
first-label trie from a verdict to the first label of its list, the continuation trie from the end of a label to the
next one or to the end of the turn. A guard's next-token distribution is needed at a trie's inner nodes only.

The root trie is evaluated for every request. A small first-label trie, of codes, is made a subtree of it; a large one,
of names, is evaluated by itself where its verdict is likely enough.

A label ends where its stable prefix does: the tokens that are the same whatever follows. Mostly those are all its
tokens, and every label is of one continuation class. Where a tokenizer merges the end of some labels with what
follows, the merged tokens stand on the way to what follows, and those labels have a continuation class of their own.

For example, the answers `safe` and `unsafe`, a line break, and some of the labels S1, S10 and S2, in the tokens of
Qwen 2.5, which splits digits and merges `,S` (⏎ is a line break):

    verdict_tokens   safe | unsafe
    first            ⏎ S 1 | ⏎ S 1 0 | ⏎ S 2
    further          ,S 1 | ,S 1 0 | ,S 2
    answer_suffixes  END
    shared_subtrees  the root trie's nodes 1, 2, 3, 4

    root trie
    node  said before   the next token
    0     ·             safe, unsafe
    1     unsafe        ⏎
    2     unsafe ⏎      S
    3     unsafe ⏎ S    1, 2
    4     unsafe ⏎ S 1  0; ,S END: S1 ends

    first-label trie
    node  said before  the next token
    0     ·            ⏎
    1     ⏎            S
    2     ⏎ S          1, 2
    3     ⏎ S 1        0; ,S END: S1 ends

    continuation trie
    node  said before  the next token
    0     ·            ,S, END
    1     ,S           1, 2
    2     ,S 1         0; ,S END: S1 ends

    path (0, 0, 2): list 0, then S1, S2: unsafe ⏎ S 1 ,S 2

A node costs one token of computation; the next token's probabilities are read there. After `unsafe ⏎ S 1` the token `0`
makes the label S10, while `,S` and the end of the turn say that it was S1: these two are S1's FOLLOW set.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from verdictree.families.grammar import VerdictGrammar
from verdictree.verdict_tree.onward import Onward, Path
from verdictree.verdict_tree.trie import Tokens, Trie


class VerdictTree(
    msgspec.Struct,
    frozen=True,
    rename={
        "verdict_tokens": "words",
        "continuation_class": "ending",
        "answer_suffixes": "closings",
        "root_trie": "head",
        "first_label_trie": "opening",
        "shared_subtrees": "grafts",
        "continuation_trie": "tail",
        "answer_prefix_length": "lead_length",
    },
):
    """A grammar compiled for one tokenizer.

    verdict_tokens     of each answer, up to and including its verdict text
    first              from the verdict to the first label: `len(labels)` paths for each list, in the order of `lists`
    continuation_class  of each label, the number of its class
    further            from the end of a label to the next: `len(labels)` paths for each continuation class
    answer_suffixes    for each continuation class, from the end of the last label to the end of the turn
    root_trie, first_label_trie, continuation_trie  of the verdicts, of `first`, of `further` and `answer_suffixes`
    shared_subtrees    for each list the nodes of the root trie that stand for those of the first-label trie; none where
                       that one is evaluated by itself
    answer_prefix_length, first_spelling (for each list), further_spelling (for each class)  from which token of such a
                       path on the verdict or the label itself is spelled
    end_tokens         that end the model's turn
    vocabulary         every token id that a verdict can hold

    Manifests name some of these otherwise, as the fields were called when their format was fixed: see `rename`.
    """

    grammar: VerdictGrammar
    labels: tuple[str, ...]
    verdict_tokens: tuple[Tokens, ...]
    first: tuple[Tokens, ...]
    continuation_class: tuple[int, ...]
    further: tuple[Tokens, ...]
    answer_suffixes: tuple[tuple[Tokens, ...], ...]
    root_trie: Trie
    first_label_trie: Trie
    shared_subtrees: tuple[tuple[int, ...], ...]
    continuation_trie: Trie
    answer_prefix_length: int
    first_spelling: tuple[int, ...]
    further_spelling: tuple[int, ...]
    end_tokens: Tokens
    vocabulary: Tokens

    @property
    def lists(self) -> tuple[int, ...]:
        """The answers that open a list of labels."""
        return tuple(a for a, answer in enumerate(self.grammar.answers) if answer.list_prefix is not None)

    @property
    def first_labels_apart(self) -> bool:
        """Whether there are lists whose first-label trie is evaluated by itself."""
        return bool(self.first) and not self.shared_subtrees

    @property
    def safe(self) -> Tokens:
        """The tokens of the first safe answer, up to its verdict text."""
        return self.verdict_tokens[self.grammar.answers.index(self.grammar.first_answer("safe"))]

    @property
    def unsafe(self) -> Tokens:
        """The tokens of the first unsafe answer, up to its verdict text."""
        return self.verdict_tokens[self.grammar.answers.index(self.grammar.first_answer("unsafe"))]

    @property
    def unused(self) -> int:
        """A number that is no index into `first` or `further`."""
        return max(len(self.first), len(self.further))

    def label_of(self, index: int) -> int:
        """The label to which this index into `first` or `further` leads."""
        return index % len(self.labels)

    def list_of(self, index: int) -> int:
        """The number of the list that this index into `first` begins."""
        return index // len(self.labels)

    def class_before(self, index: int) -> int:
        """The continuation class that this index into `further` goes on from."""
        return index // len(self.labels)

    def class_after(self, index: int) -> int:
        """The continuation class of the label to which this index leads."""
        return self.continuation_class[self.label_of(index)]

    def labels_of(self, path: Path) -> list[int]:
        """The labels that a path names, in its order."""
        return [self.label_of(index) for index in path[1:]]

    def path(self, number: int, labels: Sequence[int] = ()) -> Path:
        """The path of list `number` that names these labels in this order."""
        path: Path = (number,)
        for label in labels:
            path = (*path, self.onward(path).index_of(label))
        return path

    def after_list(self, number: int) -> Onward:
        """How an answer goes on after the verdict of this list: to a first label."""
        start = number * len(self.labels)
        paths = self.first[start : start + len(self.labels)]
        return Onward(self.first_label_trie, paths, start, self.first_spelling[number])

    def after_class(self, number: int) -> Onward:
        """How an answer goes on after a label of this continuation class: to a further label, or to its end."""
        start = number * len(self.labels)
        paths = self.further[start : start + len(self.labels)]
        spelled_from, suffixes = self.further_spelling[number], self.answer_suffixes[number]
        return Onward(self.continuation_trie, paths, start, spelled_from, suffixes)

    def onward(self, path: Path) -> Onward:
        """How an answer goes on after a path."""
        return self.after_list(path[0]) if len(path) == 1 else self.after_class(self.class_after(path[-1]))

    def trie_after(self, path: Path) -> Trie:
        """The trie that comes after a path; the root trie after nothing."""
        return self.onward(path).trie if path else self.root_trie

    def path_tokens(self, path: Path) -> Tokens:
        """The tokens of the answer along a path, without an answer's suffix."""
        verdict = [self.verdict_tokens[self.lists[number]] for number in path[:1]]
        labels = [self.first[i] for i in path[1:2]] + [self.further[i] for i in path[2:]]
        return tuple(itertools.chain(*verdict, *labels))
