"""How a tokenizer spells a grammar's answers, and whether it tells them apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from verdictree.errors import AmbiguousGrammar
from verdictree.families.grammar import Answer, VerdictGrammar

Tokens = tuple[int, ...]
Encode = Callable[[str], Sequence[int]]

_MAX_TRIPLES = 32_768  # all of 32 labels; seconds


@dataclass(frozen=True)
class Ending:
    """What may follow a label, from the end of its stem on: the way to each label's stem, and each closing.

    A label's stem is those of its tokens that are the same whatever follows: where a tokenizer merges `)` with the
    comma after it, the stem of `Sexual (minor)` ends before the bracket.
    """

    further: tuple[Tokens, ...]
    closings: tuple[Tokens, ...]

    @property
    def terminators(self) -> set[int]:
        """The tokens of the text that end the label; before the empty closing only the end of the turn does."""
        return {path[0] for path in (*self.further, *self.closings) if path}


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
        return tuple(self._stem(answer, [label]) for answer in self.lists for label in self.labels)

    def endings(self) -> tuple[Ending, ...]:
        """The ending of each label."""
        return tuple(self._ending(label) for label in self.labels) if self.lists else ()

    def _ending(self, label: str) -> Ending:
        answer, stem = self.lists[0], self._stem(self.lists[0], [label])
        further = []
        for other in self.labels:
            further.append(self._stem(answer, [label, other])[len(stem) :])
            if not further[-1]:
                raise AmbiguousGrammar(
                    f"expected the tokens of {self.grammar.text(answer, [label, other])!r} "
                    f"{list(self.tokens(answer, [label, other]))} to show where {other!r} begins after {list(stem)}; "
                    "this tokenizer merges a whole label with what stands before it: use labels that begin differently"
                )
        closings = (self.tokens(answer, [label], closing)[len(stem) :] for closing in self.grammar.closings)
        return Ending(tuple(further), tuple(closings))

    def _stem(self, answer: Answer, labels: Sequence[str]) -> Tokens:
        tokens = self.tokens(answer, labels)
        return tokens[: len(tokens) - self._num_loose[labels[-1]]]

    @cached_property
    def _num_loose(self) -> dict[str, int]:
        """How many of each label's last tokens depend on what follows it; `check` says what it proves of the others."""
        answer, loose = self.lists[0], {}
        for label in self.labels:
            alone = self.tokens(answer, [label])
            followed = [self.tokens(answer, [label, other]) for other in self.labels]
            closed = [self.tokens(answer, [label], closing) for closing in self.grammar.closings]
            shared = itertools.takewhile(
                lambda column: len(set(column)) == 1, zip(alone, *followed, *closed, strict=False)
            )
            loose[label] = len(alone) - sum(1 for _ in shared)
        return loose


def check(spelling: Spelling, words: Sequence[Tokens], first: Sequence[Tokens], endings: Sequence[Ending]) -> None:
    """Raise AmbiguousGrammar, naming strings and tokens, unless every answer is one path of its own.

    `endings` are those of the labels, in their order. Proven by encoding all answers of one and of two labels, and of
    three where there are at most 32 labels; of more labels 32,768 answers of three, spread evenly, are encoded.
    """
    listed = [(answer, label) for answer in spelling.lists for label in spelling.labels]
    paths = dict(zip(listed, first, strict=True))
    onward = dict(zip(spelling.labels if endings else (), endings, strict=True))
    _check_factorization(spelling, paths, onward)
    _check_words(spelling, words, paths)
    for ending in dict.fromkeys(endings):
        _check_label_ends(dict(zip(spelling.labels, ending.further, strict=True)), onward)
    for answer in spelling.lists:
        _check_label_ends({label: paths[answer, label] for label in spelling.labels}, onward)


def _check_factorization(
    spelling: Spelling, first: dict[tuple[Answer, str], Tokens], endings: dict[str, Ending]
) -> None:
    labels, closings = spelling.labels, spelling.grammar.closings
    triples = _triples(labels)
    for answer in spelling.lists:
        few = itertools.chain(itertools.product(labels), itertools.product(labels, repeat=2))
        for named in itertools.chain(few, triples if answer is spelling.lists[0] else ()):
            begun = first[answer, named[0]]
            for before, label in itertools.pairwise(named):
                begun += endings[before].further[labels.index(label)]
            for closing, last in zip(closings, endings[named[-1]].closings, strict=True):
                expected, got = begun + last, spelling.tokens(answer, named, closing)
                if got != expected:
                    raise AmbiguousGrammar(
                        f"the tokens of {spelling.grammar.text(answer, named) + closing!r} are {list(got)}, but its "
                        f"labels one by one give {list(expected)}; this tokenizer spells a label differently beside "
                        "others: use other labels or another separator"
                    )


def _triples(labels: Sequence[str]) -> list[tuple[str, ...]]:
    step = -(-(len(labels) ** 3) // _MAX_TRIPLES)
    while step > 1 and math.gcd(step, len(labels)) > 1:  # else each label would stand in some places only
        step += 1
    return list(itertools.islice(itertools.product(labels, repeat=3), 0, None, max(1, step)))


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


def _check_label_ends(paths: dict[str, Tokens], endings: dict[str, Ending]) -> None:
    for (a, a_tokens), (b, b_tokens) in itertools.permutations(paths.items(), 2):
        if a_tokens == b_tokens:
            raise AmbiguousGrammar(
                f"labels {a!r} and {b!r} have the same tokens {list(a_tokens)}, up to what may merge with the text "
                "after them; rename one"
            )
        extends = b_tokens[: len(a_tokens)] == a_tokens
        if extends and b_tokens[len(a_tokens)] in endings[a].terminators:
            raise AmbiguousGrammar(
                f"label {b!r} {list(b_tokens)} goes on from label {a!r} {list(a_tokens)} with token "
                f"{b_tokens[len(a_tokens)]}, which also ends a label; rename one"
            )
