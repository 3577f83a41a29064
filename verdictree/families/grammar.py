"""Which strings a family of guards may answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from verdictree.conversation import ROLES, Role
from verdictree.policy import Category

VerdictClass = Literal["safe", "unsafe", "controversial"]


class Answer(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"verdict_text": "word", "verdict_class": "ruling", "list_prefix": "opening"},
):
    """One way in which an answer can go.

    It begins with `verdict_text`, which is all that judges the last message, for the roles that are asked about in
    this way. `names` are the labels that this text itself names. Where there is a `list_prefix`, a list of labels
    follows.
    """

    verdict_text: str
    verdict_class: VerdictClass
    list_prefix: str | None = None
    names: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ROLES


class VerdictGrammar(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"answer_suffixes": "closings", "answer_prefix": "lead"},
):
    r"""The answers that a guard may give, each ended by the end of its turn:

        answer_prefix verdict_text
        answer_prefix verdict_text list_prefix label (separator label)* answer_suffix

    Llama Guard 3's `\n\nunsafe\nS1,S10` is: prefix `\n\n`, verdict text `unsafe`, list prefix `\n`, label `S1`,
    separator `,`, label `S10`, and an empty suffix.

    Labels come in any order and may repeat: a guard can write both, so both carry probability. What follows a verdict
    text without a list is not looked at: the verdict stands already. No verdict text of a role begins another of that
    role. `labels_are` says what of a category the guard writes. With `per_category` a guard is asked about one category
    at a time, and the answer judges that one. Where `goes_on`, a suffix does not end the guard's turn: what it says
    after its list is not looked at.
    """

    answers: tuple[Answer, ...]
    separator: str = ","
    answer_suffixes: tuple[str, ...] = ("",)
    answer_prefix: str = ""
    labels_are: Literal["code", "name"] = "code"
    per_category: bool = False
    goes_on: bool = False

    @property
    def roles(self) -> tuple[Role, ...]:
        """Whose messages the answers judge."""
        return tuple(role for role in ROLES if any(role in answer.roles for answer in self.answers))

    def text(self, answer: Answer, labels: Sequence[str] = ()) -> str:
        """The answer as far as these labels in this order; up to its verdict text without labels."""
        body = (answer.list_prefix or "") + self.separator.join(labels) if labels else ""
        return self.answer_prefix + answer.verdict_text + body

    def label(self, category: Category) -> str:
        """What the guard writes to name this category."""
        return category.code if self.labels_are == "code" else category.name

    def first_answer(self, verdict_class: VerdictClass) -> Answer:
        """The first answer of this verdict class."""
        return next(answer for answer in self.answers if answer.verdict_class == verdict_class)

    def unsafe_answer(self, labels: Sequence[str] = ()) -> str:
        """The text of the first unsafe answer that names these labels in this order."""
        return self.text(self.first_answer("unsafe"), labels)


def label_list(safe: str, unsafe: str, list_prefix: str, separator: str, answer_prefix: str = "") -> VerdictGrammar:
    """The grammar of guards that answer with a safe text, or an unsafe text and a list of labels."""
    answers = (Answer(safe, "safe"), Answer(unsafe, "unsafe", list_prefix))
    return VerdictGrammar(answers, separator, answer_prefix=answer_prefix)
