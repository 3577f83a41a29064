"""How a tokenizer spells a grammar's answers, and whether it tells them apart.

For example, the label `Sexual (minor)` in an answer of Nemotron's, in the tokens of Llama 3 (␣ is a space). Its last
token depends on what follows, so the stable prefix ends before it, and the bracket belongs to what follows:

    alone                         ", ␣" Safety ␣Categories ": ␣" Sex ual ␣( minor )
    another follows               ", ␣" Safety ␣Categories ": ␣" Sex ual ␣( minor ), ␣Sexual
    the list ends                 ", ␣" Safety ␣Categories ": ␣" Sex ual ␣( minor ) "}
    stable prefix                 ", ␣" Safety ␣Categories ": ␣" Sex ual ␣( minor
    unstable tokens               1
    FOLLOW set of Sexual          , "}
    FOLLOW set of Sexual (minor)  ) ),
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from verdictree.errors import AmbiguousGrammar
from verdictree.families.grammar import Answer, VerdictGrammar
from verdictree.verdict_tree.trie import Tokens

Encode = Callable[[str], Sequence[int]]

_MAX_TRIPLES = 32_768  # all of 32 labels; seconds


@dataclass(frozen=True)
class Continuation:
    """What may follow a label, from the end of its stable prefix on: the way to each label's, and each answer suffix.

    A label's stable prefix is those of its tokens that are the same whatever follows: where a tokenizer merges `)` with
    the comma after it, that of `Sexual (minor)` ends before the bracket.
    """

    further: tuple[Tokens, ...]
    answer_suffixes: tuple[Tokens, ...]

    @property
    def follow_set(self) -> set[int]:
        """The tokens of the text that end the label; before the empty suffix only the end of the turn does."""
        return {path[0] for path in (*self.further, *self.answer_suffixes) if path}


@dataclass(frozen=True)
class Spelling:
    """The tokens of a grammar's answers over some labels; tokens merge, so only whole answers are ever encoded."""

    grammar: VerdictGrammar
    labels: tuple[str, ...]
    encode: Encode

    @property
    def lists(self) -> tuple[Answer, ...]:
        """The answers that open a list of labels."""
        return tuple(answer for answer in self.grammar.answers if answer.list_prefix is not None)

    def tokens(self, answer: Answer, labels: Sequence[str] = (), answer_suffix: str = "") -> Tokens:
        """The tokens of an answer that names these labels."""
        return tuple(self.encode(self.grammar.text(answer, labels) + answer_suffix))

    def verdicts(self) -> tuple[Tokens, ...]:
        """The tokens of each answer, up to its verdict text."""
        return tuple(self.tokens(answer) for answer in self.grammar.answers)

    def first(self) -> tuple[Tokens, ...]:
        """From the prompt to each label as the first one, list by list."""
        return tuple(self._stable_prefix(answer, [label]) for answer in self.lists for label in self.labels)

    def continuations(self) -> tuple[Continuation, ...]:
        """What may follow each label; equal ones are one continuation class."""
        return tuple(self._continuation(label) for label in self.labels) if self.lists else ()

    def _continuation(self, label: str) -> Continuation:
        answer = self.lists[0]
        begun = len(self._stable_prefix(answer, [label]))
        further = tuple(self._stable_prefix(answer, [label, other])[begun:] for other in self.labels)
        if () in further:
            other = self.labels[further.index(())]
            raise AmbiguousGrammar(
                f"expected the tokens of {self.grammar.text(answer, [label, other])!r} "
                f"{list(self.tokens(answer, [label, other]))} to show where {other!r} begins after "
                f"{list(self._stable_prefix(answer, [label]))}; "
                "this tokenizer merges a whole label with what stands before it: use labels that begin differently"
            )
        suffixes = (self.tokens(answer, [label], suffix)[begun:] for suffix in self.grammar.answer_suffixes)
        return Continuation(further, tuple(suffixes))

    def _stable_prefix(self, answer: Answer, labels: Sequence[str]) -> Tokens:
        """The tokens of an answer as far as they do not depend on what follows the last of these labels."""
        tokens = self.tokens(answer, labels)
        return tokens[: len(tokens) - self._num_unstable[labels[-1]]]

    @cached_property
    def _num_unstable(self) -> dict[str, int]:
        """How many of each label's last tokens depend on what follows it; `check` says what it proves of the others."""
        answer, unstable = self.lists[0], {}
        for label in self.labels:
            alone = self.tokens(answer, [label])
            followed = [self.tokens(answer, [label, other]) for other in self.labels]
            closed = [self.tokens(answer, [label], suffix) for suffix in self.grammar.answer_suffixes]
            unstable[label] = len(alone) - _num_shared([alone, *followed, *closed])
        return unstable


def _num_shared(sequences: Sequence[Tokens]) -> int:
    """How many tokens all sequences begin with in common."""
    columns = zip(*sequences, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


def check(
    spelling: Spelling, verdicts: Sequence[Tokens], first: Sequence[Tokens], continuations: Sequence[Continuation]
) -> None:
    """Raise AmbiguousGrammar, naming strings and tokens, unless every answer is one path of its own.

    `continuations` are those of the labels, in their order. Proven by encoding all answers of one and of two labels,
    and of three where there are at most 32 labels; of more labels 32,768 answers of three, spread evenly, are encoded.
    """
    listed = [(answer, label) for answer in spelling.lists for label in spelling.labels]
    paths = dict(zip(listed, first, strict=True))
    onward = dict(zip(spelling.labels if continuations else (), continuations, strict=True))
    _check_factorization(spelling, paths, onward)
    _check_verdicts(spelling, verdicts, paths)
    for continuation in dict.fromkeys(continuations):
        _check_label_ends(dict(zip(spelling.labels, continuation.further, strict=True)), onward)
    for answer in spelling.lists:
        _check_label_ends({label: paths[answer, label] for label in spelling.labels}, onward)


def _check_factorization(
    spelling: Spelling, first: dict[tuple[Answer, str], Tokens], continuations: dict[str, Continuation]
) -> None:
    labels, suffixes = spelling.labels, spelling.grammar.answer_suffixes
    triples = _triples(labels)
    for answer in spelling.lists:
        few = itertools.chain(itertools.product(labels), itertools.product(labels, repeat=2))
        for named in itertools.chain(few, triples if answer is spelling.lists[0] else ()):
            begun = first[answer, named[0]]
            for before, label in itertools.pairwise(named):
                begun += continuations[before].further[labels.index(label)]
            for suffix, ended in zip(suffixes, continuations[named[-1]].answer_suffixes, strict=True):
                expected, got = begun + ended, spelling.tokens(answer, named, suffix)
                if got != expected:
                    raise AmbiguousGrammar(
                        f"the tokens of {spelling.grammar.text(answer, named) + suffix!r} are {list(got)}, but its "
                        f"labels one by one give {list(expected)}; this tokenizer spells a label differently beside "
                        "others: use other labels or another separator"
                    )


def _triples(labels: Sequence[str]) -> list[tuple[str, ...]]:
    step = -(-(len(labels) ** 3) // _MAX_TRIPLES)
    while step > 1 and math.gcd(step, len(labels)) > 1:  # else each label would stand in some places only
        step += 1
    return list(itertools.islice(itertools.product(labels, repeat=3), 0, None, max(1, step)))


def _check_verdicts(spelling: Spelling, verdicts: Sequence[Tokens], first: dict[tuple[Answer, str], Tokens]) -> None:
    answers, text = spelling.grammar.answers, spelling.grammar.text
    for (a, a_verdict), (b, b_verdict) in itertools.permutations(zip(answers, verdicts, strict=True), 2):
        if set(a.roles) & set(b.roles) and b_verdict[: len(a_verdict)] == a_verdict:
            raise AmbiguousGrammar(
                f"{text(b)!r} {list(b_verdict)} cannot be told from {text(a)!r} {list(a_verdict)}: "
                "the tokens of one begin the other"
            )
    for (answer, label), path in first.items():
        verdict = verdicts[answers.index(answer)]
        if path[: len(verdict)] != verdict or len(path) == len(verdict):
            raise AmbiguousGrammar(
                f"expected the tokens of {text(answer)!r} {list(verdict)} to begin those of "
                f"{text(answer, [label])!r} {list(path)}; this tokenizer merges the verdict with what follows"
            )


def _check_label_ends(paths: dict[str, Tokens], continuations: dict[str, Continuation]) -> None:
    for (a, a_tokens), (b, b_tokens) in itertools.permutations(paths.items(), 2):
        if a_tokens == b_tokens:
            raise AmbiguousGrammar(
                f"labels {a!r} and {b!r} have the same tokens {list(a_tokens)}, up to what may merge with the text "
                "after them; rename one"
            )
        extends = b_tokens[: len(a_tokens)] == a_tokens
        if extends and b_tokens[len(a_tokens)] in continuations[a].follow_set:
            raise AmbiguousGrammar(
                f"label {b!r} {list(b_tokens)} goes on from label {a!r} {list(a_tokens)} with token "
                f"{b_tokens[len(a_tokens)]}, which also ends a label; rename one"
            )
