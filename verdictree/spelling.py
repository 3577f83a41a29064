"""How a tokenizer spells a grammar's answers, and whether it tells them apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from verdictree.errors import AmbiguousGrammar
from verdictree.grammar import Answer, VerdictGrammar

Tokens = tuple[int, ...]
Encode = Callable[[str], Sequence[int]]

_MAX_TRIPLES = 4096


@dataclass(frozen=True)
class Spelling:
    """The tokens of a grammar's answers over some labels; tokens merge, so only whole answers are ever encoded."""

    grammar: VerdictGrammar
    labels: tuple[str, ...]
    encode: Encode

    @property
    def lists(self) -> tuple[Answer, ...]:
        """The answers that open a list of labels."""
        return tuple(answer for answer in self.grammar.answers if answer.opening is not None)

    def tokens(self, answer: Answer, labels: Sequence[str] = (), closing: str = "") -> Tokens:
        """The tokens of an answer that names these labels."""
        return tuple(self.encode(self.grammar.text(answer, labels) + closing))

    def words(self) -> tuple[Tokens, ...]:
        """The tokens of each answer's word."""
        return tuple(self.tokens(answer) for answer in self.grammar.answers)

    def first(self) -> tuple[Tokens, ...]:
        """From the prompt to each label as the first one, list by list."""
        return tuple(self.tokens(answer, [label]) for answer in self.lists for label in self.labels)

    def further(self) -> tuple[Tokens, ...]:
        """From the end of a label to each further label."""
        if not self.lists:
            return ()
        return tuple(self._after([self.labels[0]], [self.labels[0], label]) for label in self.labels)

    def closings(self) -> tuple[Tokens, ...]:
        """From the end of the last label to the end of the answer."""
        closings: list[Tokens] = []
        for closing in self.grammar.closings:
            found = {self._after([label], [label], closing) if closing else () for label in self.labels}
            if len(found) > 1:
                raise AmbiguousGrammar(
                    f"expected {closing!r} to have the same tokens after each label, got {sorted(found)}; this "
                    "tokenizer merges a label's end with what follows: use labels that end alike"
                )
            closings.extend(found)
        return tuple(closings)

    def _after(self, before: Sequence[str], labels: Sequence[str], closing: str = "") -> Tokens:
        answer = self.lists[0]
        start, whole = self.tokens(answer, before), self.tokens(answer, labels, closing)
        if whole[: len(start)] != start or len(whole) == len(start):
            raise AmbiguousGrammar(
                f"expected the tokens of {self.grammar.text(answer, before)!r} {list(start)} to begin those of "
                f"{self.grammar.text(answer, labels) + closing!r} {list(whole)}; this tokenizer merges a label's end "
                "with what follows: use labels that end differently"
            )
        return whole[len(start) :]


def check(
    spelling: Spelling,
    words: Sequence[Tokens],
    first: Sequence[Tokens],
    further: Sequence[Tokens],
    closings: Sequence[Tokens],
) -> None:
    """Raise AmbiguousGrammar, naming strings and tokens, unless every answer is one path of its own."""
    listed = [(answer, label) for answer in spelling.lists for label in spelling.labels]
    paths = dict(zip(listed, first, strict=True))
    onward = dict(zip(spelling.labels if further else (), further, strict=True))
    _check_factorization(spelling, paths, onward)
    _check_words(spelling, words, paths)
    _check_label_ends(onward, {path[0] for path in (*closings, *further)})


def _check_factorization(
    spelling: Spelling, first: dict[tuple[Answer, str], Tokens], further: dict[str, Tokens]
) -> None:
    for answer in spelling.lists:
        pairs = itertools.product(spelling.labels, repeat=2)
        triples = itertools.islice(itertools.product(spelling.labels, repeat=3), _MAX_TRIPLES)
        for named in itertools.chain(pairs, triples if answer is spelling.lists[0] else ()):
            expected = first[answer, named[0]] + tuple(itertools.chain(*(further[label] for label in named[1:])))
            got = spelling.tokens(answer, named)
            if got != expected:
                raise AmbiguousGrammar(
                    f"the tokens of {spelling.grammar.text(answer, named)!r} are {list(got)}, but its labels one by "
                    f"one give {list(expected)}; this tokenizer spells a label differently beside others: use other "
                    "labels or another separator"
                )


def _check_words(spelling: Spelling, words: Sequence[Tokens], first: dict[tuple[Answer, str], Tokens]) -> None:
    answers, text = spelling.grammar.answers, spelling.grammar.text
    for (a, a_word), (b, b_word) in itertools.permutations(zip(answers, words, strict=True), 2):
        if set(a.roles) & set(b.roles) and b_word[: len(a_word)] == a_word:
            raise AmbiguousGrammar(
                f"{text(b)!r} {list(b_word)} cannot be told from {text(a)!r} {list(a_word)}: "
                "the tokens of one begin the other"
            )
    for (answer, label), path in first.items():
        word = words[answers.index(answer)]
        if path[: len(word)] != word or len(path) == len(word):
            raise AmbiguousGrammar(
                f"expected the tokens of {text(answer)!r} {list(word)} to begin those of "
                f"{text(answer, [label])!r} {list(path)}; this tokenizer merges the word with what follows"
            )


def _check_label_ends(further: dict[str, Tokens], terminators: set[int]) -> None:
    for (a, a_tokens), (b, b_tokens) in itertools.permutations(further.items(), 2):
        if a_tokens == b_tokens:
            raise AmbiguousGrammar(f"labels {a!r} and {b!r} have the same tokens {list(a_tokens)}; rename one")
        extends = b_tokens[: len(a_tokens)] == a_tokens
        if extends and b_tokens[len(a_tokens)] in terminators:
            raise AmbiguousGrammar(
                f"label {b!r} {list(b_tokens)} goes on from label {a!r} {list(a_tokens)} with token "
                f"{b_tokens[len(a_tokens)]}, which also ends a label; rename one"
            )
