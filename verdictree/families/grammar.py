"""Which strings a family of guards may answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from verdictree.conversation import ROLES, Role
from verdictree.policy import Category

Ruling = Literal["safe", "unsafe", "controversial"]


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One way in which an answer can go.

    It begins with `word`, which is all that rules on the last message, for the roles that are asked about in this
    way. `names` are the labels that the word itself names. Where there is an `opening`, a list of labels follows it.
    """

    word: str
    ruling: Ruling
    opening: str | None = None
    names: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ROLES


class VerdictGrammar(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answers `lead word` and `lead word opening label (separator label)* closing`, ended by the end of the turn.

    Labels come in any order and may repeat: a guard can write both, so both carry probability. What follows a word
    without a list is not looked at: it rules already. No word of a role begins another word of that role.
    `labels_are` says what of a category the guard writes. With `per_category` a guard is asked about one category at
    a time, and the answer rules on that one.
    """

    answers: tuple[Answer, ...]
    separator: str = ","
    closings: tuple[str, ...] = ("",)
    lead: str = ""
    labels_are: Literal["code", "name"] = "code"
    per_category: bool = False

    def text(self, answer: Answer, labels: Sequence[str] = ()) -> str:
        """The answer as far as these labels in this order; up to its word without labels."""
        body = (answer.opening or "") + self.separator.join(labels) if labels else ""
        return self.lead + answer.word + body

    def label(self, category: Category) -> str:
        """What the guard writes to name this category."""
        return category.code if self.labels_are == "code" else category.name

    def first(self, ruling: Ruling) -> Answer:
        """The first answer that rules so."""
        return next(answer for answer in self.answers if answer.ruling == ruling)

    def safe_answer(self) -> str:
        """The text of the first safe answer, up to its word."""
        return self.text(self.first("safe"))

    def unsafe_answer(self, labels: Sequence[str] = ()) -> str:
        """The text of the first unsafe answer that names these labels in this order."""
        return self.text(self.first("unsafe"), labels)


def label_list(safe: str, unsafe: str, opening: str, separator: str, lead: str = "") -> VerdictGrammar:
    """The grammar of guards that answer with a safe word, or an unsafe word and a list of labels."""
    answers = (Answer(safe, "safe"), Answer(unsafe, "unsafe", opening))
    return VerdictGrammar(answers, separator, lead=lead)
