"""The verdict tree: every answer of a grammar as token paths, compiled once with the model's own tokenizer.

After a label the answer either ends or goes on to the next label, and how it goes on does not depend on what was
named before. So the infinite tree is two small tries: `head` leads from the prompt to the first label, `tail` from
the end of a label to the next one. A guard's next-token distribution is needed at a trie's inner nodes only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from verdictree.grammar import VerdictGrammar
from verdictree.spelling import Encode, Spelling, check
from verdictree.spelling import Tokens as Tokens


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
        depths = [0]
        for parent in self.parents[1:]:
            depths.append(depths[parent] + 1)
        return tuple(depths)

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

    `words[a]` are the tokens of answer a up to and including its word. `first[i]` are those from the prompt to the
    first label of a list: `len(labels)` paths for each answer that opens one, in the order of `lists`. `further[i]`
    are those from the end of another label to label i, `closings` those from the end of the last label to the end of
    the turn. `head` is the trie of words and first labels, `tail` that of further labels and closings. `lead_length`,
    `first_spelling` (one for each list) and `further_spelling` say from which token of such a path on the word or
    label itself is spelled; what stands before leads in or separates. `vocabulary` lists every token id that a
    verdict can hold.
    """

    grammar: VerdictGrammar
    labels: tuple[str, ...]
    words: tuple[Tokens, ...]
    first: tuple[Tokens, ...]
    further: tuple[Tokens, ...]
    closings: tuple[Tokens, ...]
    head: Trie
    tail: Trie
    lead_length: int
    first_spelling: tuple[int, ...]
    further_spelling: int
    end_tokens: Tokens
    vocabulary: Tokens

    @property
    def lists(self) -> tuple[int, ...]:
        """The answers that open a list of labels."""
        return tuple(a for a, answer in enumerate(self.grammar.answers) if answer.opening is not None)

    @property
    def safe(self) -> Tokens:
        """The tokens of the first safe answer's word."""
        return self.words[self.grammar.answers.index(self.grammar.first("safe"))]

    @property
    def unsafe(self) -> Tokens:
        """The tokens of the first unsafe answer's word."""
        return self.words[self.grammar.answers.index(self.grammar.first("unsafe"))]

    @property
    def continuations(self) -> Tokens:
        """The tokens that begin a further label right after a label has ended."""
        return tuple(sorted({path[0] for path in self.further}))

    @property
    def endings(self) -> Tokens:
        """The tokens that end a list right after a label: the first ones of the closings."""
        return tuple(sorted({path[0] for path in self.closings}))

    def verdict_tokens(self, path: Sequence[int]) -> Tokens:
        """The tokens of the answer along `path` (an index into `first`, then some into `further`), not closed."""
        return self.first[path[0]] + tuple(itertools.chain.from_iterable(self.further[i] for i in path[1:]))


def compile_tree(
    grammar: VerdictGrammar, labels: Sequence[str], encode: Encode, end_tokens: Iterable[int]
) -> VerdictTree:
    """Compile the verdict tree of `labels`.

    `encode` is the model's tokenizer without special tokens; it sees whole verdict strings only, since tokens merge
    across the borders of their parts. `end_tokens` are the ids that end the model's turn.

    Raises AmbiguousGrammar, naming strings and tokens, where the tokenizer makes two verdicts share their tokens,
    lets a label's tokens depend on its neighbours, or hides where a label ends.
    """
    spelling = Spelling(grammar, tuple(labels), encode)
    ends = tuple(sorted(set(end_tokens)))
    first, further = spelling.first(), spelling.further()
    closings = tuple((*closing, end) for closing in spelling.closings() for end in ends) if first else ()
    words = spelling.words()
    check(spelling, words, first, further, closings)
    openings = [tuple(encode(grammar.text(answer) + (answer.opening or ""))) for answer in spelling.lists]
    rows = [first[i : i + len(labels)] for i in range(0, len(first), len(labels))] if first else []
    return VerdictTree(
        grammar=grammar,
        labels=tuple(labels),
        words=words,
        first=first,
        further=further,
        closings=closings,
        head=_trie([*words, *first]),
        tail=_trie([*further, *closings]),
        lead_length=_separator_length(words, encode(grammar.lead), 0),
        first_spelling=tuple(
            _separator_length(row, opening, len(encode(grammar.text(answer))))
            for row, opening, answer in zip(rows, openings, spelling.lists, strict=True)
        ),
        further_spelling=_separator_length(further, encode(grammar.separator) if further else (), 0),
        end_tokens=ends,
        vocabulary=tuple(sorted({*ends, *itertools.chain(*words, *first, *further, *closings)})),
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
