"""The verdict tree: every answer of a grammar as token paths, compiled once with the model's own tokenizer.

After a label the answer either ends or goes on to the next label, and how it goes on does not depend on what was
named before. So the infinite tree is two small tries: `head` leads from the prompt to the first label, `tail` from
the end of a label to the next one. A guard's next-token distribution is needed at a trie's inner nodes only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from verdictree.errors import AmbiguousGrammar
from verdictree.grammar import VerdictGrammar

Tokens = tuple[int, ...]
Encode = Callable[[str], Sequence[int]]

_MAX_TRIPLES = 4096


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
        return matrix.reshape(-1, len(sequences))


class VerdictTree(msgspec.Struct, frozen=True):
    """A grammar compiled for one tokenizer.

    `safe` and `unsafe` are the tokens of the two words, `first[i]` those from the prompt to label i as first label,
    `further[i]` those from the end of another label to label i. `head` is the trie of the former, `tail` that of the
    latter. `unsafe_spelling`, `first_spelling` and `further_spelling` say from which token of such a path on the word
    or label itself is spelled; what stands before separates. `vocabulary` lists every token id that a verdict can hold.
    """

    grammar: VerdictGrammar
    labels: tuple[str, ...]
    safe: Tokens
    unsafe: Tokens
    first: tuple[Tokens, ...]
    further: tuple[Tokens, ...]
    head: Trie
    tail: Trie
    unsafe_spelling: int
    first_spelling: int
    further_spelling: int
    end_tokens: Tokens
    vocabulary: Tokens

    @property
    def continuations(self) -> Tokens:
        """The tokens that begin a further label right after a label has ended."""
        return tuple(sorted({path[0] for path in self.further}))

    def verdict_tokens(self, named: Sequence[int]) -> Tokens:
        """The tokens of the unsafe answer that names the labels with these indices, without the end of the turn."""
        tokens = self.first[named[0]]
        return tokens + tuple(itertools.chain.from_iterable(self.further[i] for i in named[1:]))


def compile_tree(
    grammar: VerdictGrammar, labels: Sequence[str], encode: Encode, end_tokens: Iterable[int]
) -> VerdictTree:
    """Compile the verdict tree of `labels`.

    `encode` is the model's tokenizer without special tokens; it sees whole verdict strings only, since tokens merge
    across the borders of their parts. `end_tokens` are the ids that end the model's turn.

    Raises AmbiguousGrammar, naming strings and tokens, where the tokenizer makes two verdicts share their tokens,
    lets a label's tokens depend on its neighbours, or hides where a label ends.
    """
    ends = tuple(sorted(set(end_tokens)))
    safe, unsafe = tuple(encode(grammar.safe_answer())), tuple(encode(grammar.unsafe_answer()))
    first = {label: tuple(encode(grammar.unsafe_answer([label]))) for label in labels}
    further = {label: _further_tokens(grammar, labels[0], label, first[labels[0]], encode) for label in labels}
    _check_factorization(grammar, first, further, encode)
    _check_words(grammar, safe, unsafe, first)
    _check_label_ends(further, ends)
    return VerdictTree(
        grammar=grammar,
        labels=tuple(labels),
        safe=safe,
        unsafe=unsafe,
        first=tuple(first.values()),
        further=tuple(further.values()),
        head=_trie([safe, unsafe, *first.values()]),
        tail=_trie(further.values()),
        unsafe_spelling=_separator_length([unsafe], encode(grammar.lead), 0),
        first_spelling=_separator_length(
            first.values(), encode(grammar.unsafe_answer() + grammar.opening), len(unsafe)
        ),
        further_spelling=_separator_length(further.values(), encode(grammar.separator), 0),
        end_tokens=ends,
        vocabulary=tuple(sorted({*ends, *safe, *unsafe, *itertools.chain(*first.values(), *further.values())})),
    )


def _further_tokens(grammar: VerdictGrammar, before: str, label: str, start: Tokens, encode: Encode) -> Tokens:
    text = grammar.unsafe_answer([before, label])
    whole = tuple(encode(text))
    if whole[: len(start)] != start or len(whole) == len(start):
        raise AmbiguousGrammar(
            f"expected the tokens of {grammar.unsafe_answer([before])!r} {list(start)} to begin those of {text!r} "
            f"{list(whole)}; this tokenizer merges a label's end with what follows: use labels that end differently"
        )
    return whole[len(start) :]


def _check_factorization(
    grammar: VerdictGrammar, first: dict[str, Tokens], further: dict[str, Tokens], encode: Encode
) -> None:
    triples = itertools.islice(itertools.product(first, repeat=3), _MAX_TRIPLES)
    for named in itertools.chain(itertools.product(first, repeat=2), triples):
        text = grammar.unsafe_answer(named)
        expected = first[named[0]] + tuple(itertools.chain(*(further[label] for label in named[1:])))
        got = tuple(encode(text))
        if got != expected:
            raise AmbiguousGrammar(
                f"the tokens of {text!r} are {list(got)}, but its labels one by one give {list(expected)}; "
                "this tokenizer spells a label differently beside others: use other labels or another separator"
            )


def _check_words(grammar: VerdictGrammar, safe: Tokens, unsafe: Tokens, first: dict[str, Tokens]) -> None:
    for label, path in first.items():
        text = grammar.unsafe_answer([label])
        if path[: len(unsafe)] != unsafe or len(path) == len(unsafe):
            raise AmbiguousGrammar(
                f"expected the tokens of {grammar.unsafe_answer()!r} {list(unsafe)} to begin those of {text!r} "
                f"{list(path)}; this tokenizer merges the unsafe word with what follows"
            )
        if path[: len(safe)] == safe or unsafe == safe[: len(unsafe)]:
            raise AmbiguousGrammar(
                f"{text!r} {list(path)} cannot be told from {grammar.safe_answer()!r} {list(safe)}: "
                "the tokens of one begin the other"
            )


def _check_label_ends(further: dict[str, Tokens], ends: Tokens) -> None:
    terminators = {*ends, *(sequence[0] for sequence in further.values())}
    for (a, a_tokens), (b, b_tokens) in itertools.permutations(further.items(), 2):
        if a_tokens == b_tokens:
            raise AmbiguousGrammar(f"labels {a!r} and {b!r} have the same tokens {list(a_tokens)}; rename one")
        extends = b_tokens[: len(a_tokens)] == a_tokens
        if extends and b_tokens[len(a_tokens)] in terminators:
            raise AmbiguousGrammar(
                f"label {b!r} {list(b_tokens)} goes on from label {a!r} {list(a_tokens)} with token "
                f"{b_tokens[len(a_tokens)]}, which also ends a label; rename one"
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
