"""ShieldGemma and Granite Guardian 3.0 to 3.2: `Yes` or `No` to one category; a policy is asked as many questions.

ShieldGemma (arXiv 2407.21772) takes a category's description as the argument `guideline` of its chat template,
Granite Guardian (arXiv 2412.07724) a risk by name or with a definition of its own. What Granite Guardian 3.2 says after
its `Yes` or `No`, a confidence, is not looked at. Version 3.3 answers otherwise.

Both read the last message only, Granite Guardian an assistant's message with the user's before it; ShieldGemma's
prompt about a response holds control tokens between the two messages and cannot be asked. Both leave white space around
a message as it is. Granite Guardian marks turns by the words `User Message:` and `Assistant Message:`; a line of a
message that begins like one is quoted. What the formats leave open: a message may spell the marks around the
conversation.
"""

from __future__ import annotations

from typing import Any

from verdictree.errors import UnsupportedGuard
from verdictree.families.grammar import Answer, VerdictGrammar
from verdictree.families.guard_family import ConversationFormat, GuardFamily, Question, TemplatePrompt
from verdictree.policy import Category

_GRAMMAR = VerdictGrammar((Answer("No", "safe"), Answer("Yes", "unsafe")), per_category=True)


def _category(question: Question) -> Category:
    if question.category is None:
        raise UnsupportedGuard("expected one category a question, got none; this family is asked one by one")
    return question.category


def _guideline(question: Question) -> dict[str, Any]:
    category = _category(question)
    return {"guideline": f'"{category.name}": {category.description}' if category.description else category.name}


def _risk(question: Question) -> dict[str, Any]:
    category = _category(question)
    definition = {"risk_definition": category.description} if category.description else {}
    return {"guardian_config": {"risk_name": category.code, **definition}}


FAMILIES = (
    GuardFamily(
        name="shieldgemma",
        grammar=_GRAMMAR,
        conversation=ConversationFormat(
            {"user": "Human Question: {content}\n"}, trims=False, reads={"user": ("user",)}
        ),
        prompt=TemplatePrompt(_guideline),
        template_marks=("guideline", "Human Question"),
    ),
    GuardFamily(
        name="granite-guardian",
        grammar=_GRAMMAR,
        conversation=ConversationFormat(
            {"user": "User Message: {content}\n", "assistant": "Assistant Message: {content}\n"},
            trims=False,
            reads={"user": ("user",), "assistant": ("user", "assistant")},
        ),
        prompt=TemplatePrompt(_risk),
        template_marks=("guardian_config", "risk_name"),
    ),
)
