"""The verdict tree: every answer of a grammar as token paths, compiled once with the model's own tokenizer.

After a label the answer either ends or goes on to the next label, and how it goes on depends on nothing but how that
label ends. So the infinite tree is three small tries: `head` leads from the prompt to the words, `opening` from a word
to the first label of its list, `tail` from the end of a label to the next one. A guard's next-token distribution is
needed at a trie's inner nodes only.

The head is evaluated for every request. A small opening, of codes, is grafted onto it; a large one, of names, is
evaluated by itself where its word is likely enough.

A label ends where its stem does: the tokens that are the same whatever follows. Mostly those are all its tokens, and
every label has the same ending. Where a tokenizer merges the end of some labels with what follows, the merged tokens
stand on the way to what follows, and those labels have an ending of their own.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from verdictree.families.grammar import VerdictGrammar
from verdictree.verdict_tree.spelling import Encode, Spelling, check
from verdictree.verdict_tree.spelling import Tokens as Tokens

_LARGEST_GRAFT = 32  # about as many more tokens take as long as a pass by itself, which reads all weights once more


class Trie(msgspec.Struct, frozen=True):
    """The inner nodes that a set of token sequences passes through, parents before children.

    Node 0 is the entry: its hidden state is that of the token before the trie. Node i feeds `tokens[i]`
    (`tokens[0]` is 0 and means nothing) and follows node `parents[i]`.
    """

    tokens: Tokens
    parents: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def depths(self) -> tuple[int, ...]:
        """Number of tokens from the entry to each node, shape (nodes,)."""
        return tuple(map(len, self.sequences()))

    def sequences(self) -> list[Tokens]:
        """The tokens from the entry to each node."""
        sequences: list[Tokens] = [()]
        for parent, token in zip(self.parents[1:], self.tokens[1:], strict=True):
            sequences.append((*sequences[parent], token))
        return sequences

    def walk(self, sequence: Sequence[int]) -> list[int]:
        """The nodes at which the tokens of `sequence` are chosen, one for each token."""
        children = {(self.parents[i], self.tokens[i]): i for i in range(1, len(self))}
        nodes = [0]
        for token in sequence[:-1]:
            nodes.append(children[nodes[-1], token])
        return nodes

    def ancestors(self, sequences: Sequence[Tokens]) -> npt.NDArray[np.bool_]:
        """Which nodes each sequence passes through, shape (sequences, nodes); the entry is always among them."""
        passed = np.zeros((len(sequences), len(self)), dtype=bool)
        for row, sequence in enumerate(sequences):
            passed[row, self.walk(sequence)] = True
        return passed

    def visibility(self) -> npt.NDArray[np.bool_]:
        """Tree attention: whether node i (row) attends to node j (column), shape (nodes, nodes)."""
        visible = np.eye(len(self), dtype=bool)
        for i in range(1, len(self)):
            visible[i] |= visible[self.parents[i]]
        return visible

    def path_matrix(self, sequences: Sequence[Tokens], vocabulary: Tokens) -> npt.NDArray[np.float64]:
        """0/1 matrix that turns node log-probabilities, flattened from (nodes, vocabulary), into those of sequences.

        log p(sequence) = Σ_t log p(token_t | node_t). Shape (nodes * vocabulary, sequences).
        """
        column = {token: i for i, token in enumerate(vocabulary)}
        matrix = np.zeros((len(self), len(vocabulary), len(sequences)))
        for index, sequence in enumerate(sequences):
            for node, token in zip(self.walk(sequence), sequence, strict=True):
                matrix[node, column[token], index] = 1.0
        return matrix.reshape(len(self) * len(vocabulary), len(sequences))


class VerdictTree(msgspec.Struct, frozen=True):
    """A grammar compiled for one tokenizer.

    `words[a]` are the tokens of answer a up to and including its word. `first[i]` are those from the word to the first
    label of its list: `len(labels)` paths for each answer that opens one, in the order of `lists`. `ending[i]` is the
    number of label i's ending. `further[i]` are those from the end of another label to the next: `len(labels)` paths
    for each ending. `closings[e]` are those from the end of the last label, of ending e, to the end of the turn.
    `head` is the trie of words, `opening` that of first labels, `tail` that of all further labels and closings.
    `grafts[n]` are the head's nodes that stand for the opening's after the word of list n; there are none where the
    opening is evaluated by itself. `lead_length`, `first_spelling` (one for each list) and `further_spelling` (one for
    each ending) say from which token of such a path on the word or label itself is spelled; what stands before leads in
    or separates. `vocabulary` lists every token id that a verdict can hold.
    """

    grammar: VerdictGrammar
    labels: tuple[str, ...]
    words: tuple[Tokens, ...]
    first: tuple[Tokens, ...]
    ending: tuple[int, ...]
    further: tuple[Tokens, ...]
    closings: tuple[tuple[Tokens, ...], ...]
    head: Trie
    opening: Trie
    grafts: tuple[tuple[int, ...], ...]
    tail: Trie
    lead_length: int
    first_spelling: tuple[int, ...]
    further_spelling: tuple[int, ...]
    end_tokens: Tokens
    vocabulary: Tokens

    @property
    def lists(self) -> tuple[int, ...]:
        """The answers that open a list of labels."""
        return tuple(a for a, answer in enumerate(self.grammar.answers) if answer.opening is not None)

    @property
    def opens_apart(self) -> bool:
        """Whether there are lists whose opening is evaluated by itself."""
        return bool(self.first) and not self.grafts

    @property
    def safe(self) -> Tokens:
        """The tokens of the first safe answer's word."""
        return self.words[self.grammar.answers.index(self.grammar.first("safe"))]

    @property
    def unsafe(self) -> Tokens:
        """The tokens of the first unsafe answer's word."""
        return self.words[self.grammar.answers.index(self.grammar.first("unsafe"))]

    @property
    def unused(self) -> int:
        """A number that is no index into `first` or `further`."""
        return max(len(self.first), len(self.further))

    def first_in(self, number: int) -> tuple[Tokens, ...]:
        """The paths from the word of this list to each label as its first one."""
        start = number * len(self.labels)
        return self.first[start : start + len(self.labels)]

    def further_after(self, ending: int) -> tuple[Tokens, ...]:
        """The paths from this ending to each further label."""
        start = ending * len(self.labels)
        return self.further[start : start + len(self.labels)]

    def terminators(self, ending: int) -> Tokens:
        """The tokens that end a label of this ending: those that begin a further label or a closing."""
        return tuple(sorted({path[0] for path in (*self.further_after(ending), *self.closings[ending])}))

    def trie_after(self, path: Sequence[int]) -> Trie:
        """What comes after `path`: nothing, or the number of a list, an index into `first`, some into `further`."""
        return (self.head, self.opening, self.tail)[min(len(path), 2)]

    def verdict_tokens(self, path: Sequence[int]) -> Tokens:
        """The tokens of the answer along such a path, not closed."""
        words = [self.words[self.lists[number]] for number in path[:1]]
        labels = [self.first[i] for i in path[1:2]] + [self.further[i] for i in path[2:]]
        return tuple(itertools.chain(*words, *labels))


def compile_tree(
    grammar: VerdictGrammar,
    labels: Sequence[str],
    encode: Encode,
    end_tokens: Iterable[int],
    opens_apart: bool | None = None,
) -> VerdictTree:
    """Compile the verdict tree of `labels`.

    `encode` is the model's tokenizer without special tokens; it sees whole verdict strings only, since tokens merge
    across the borders of their parts. `end_tokens` are the ids that end the model's turn. `opens_apart` says whether
    openings are evaluated by themselves; None: where that is cheaper.

    Raises AmbiguousGrammar, naming strings and tokens, where the tokenizer makes two verdicts share their tokens,
    lets a label's tokens depend on its neighbours, or hides where a label ends.
    """
    spelling = Spelling(grammar, tuple(labels), functools.cache(encode))
    ends = tuple(sorted(set(end_tokens)))
    words, listed, endings = spelling.words(), spelling.first(), spelling.endings()
    check(spelling, words, listed, endings)
    distinct = tuple(dict.fromkeys(endings))
    further = tuple(itertools.chain.from_iterable(ending.further for ending in distinct))
    closings = tuple(tuple((*closing, end) for closing in ending.closings for end in ends) for ending in distinct)
    leads = [tuple(encode(grammar.text(answer) + (answer.opening or ""))) for answer in spelling.lists]
    opened = [words[grammar.answers.index(answer)] for answer in spelling.lists]
    rows = [listed[i * len(labels) : (i + 1) * len(labels)] for i in range(len(opened))]
    first = tuple(path[len(word) :] for word, row in zip(opened, rows, strict=True) for path in row)
    head, opening = _trie(words), _trie(first)
    whole = _trie([*words, *((*word, *path) for word in opened for path in first)])
    apart = len(whole) - len(head) > _LARGEST_GRAFT if opens_apart is None else opens_apart
    grafts = [tuple(whole.walk((*word, *onward, 0))[-1] for onward in opening.sequences()) for word in opened]
    return VerdictTree(
        grammar=grammar,
        labels=tuple(labels),
        words=words,
        first=first,
        ending=tuple(distinct.index(ending) for ending in endings),
        further=further,
        closings=closings,
        head=head if apart else whole,
        opening=opening,
        grafts=() if apart else tuple(grafts),
        tail=_trie([*further, *itertools.chain(*closings)]),
        lead_length=_separator_length(words, encode(grammar.lead), 0),
        first_spelling=tuple(
            _separator_length(row, lead, len(word)) - len(word)
            for row, lead, word in zip(rows, leads, opened, strict=True)
        ),
        further_spelling=tuple(_separator_length(one.further, encode(grammar.separator), 0) for one in distinct),
        end_tokens=ends,
        vocabulary=tuple(sorted({*ends, *itertools.chain(*words, *first, *further, *itertools.chain(*closings))})),
    )


def _separator_length(paths: Iterable[Tokens], separator: Sequence[int], otherwise: int) -> int:
    # Where the separator's tokens merge with the label's, the merged token spells the label too.
    lead = tuple(separator)
    apart = all(path[: len(lead)] == lead and len(path) > len(lead) for path in paths)
    return len(lead) if apart else otherwise


def _trie(sequences: Iterable[Tokens]) -> Trie:
    # A sequence's last token is chosen at an inner node and feeds none itself, unless another sequence goes on there.
    prefixes = {sequence[:n] for sequence in sequences for n in range(1, len(sequence))}
    ordered = sorted(prefixes, key=lambda prefix: (len(prefix), prefix))
    index = {prefix: i for i, prefix in enumerate(ordered, start=1)} | {(): 0}
    return Trie(
        tokens=(0, *(prefix[-1] for prefix in ordered)),
        parents=(0, *(index[prefix[:-1]] for prefix in ordered)),
    )
