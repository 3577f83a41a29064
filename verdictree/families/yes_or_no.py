"""ShieldGemma and Granite Guardian 3.0 and 3.1: `Yes` or `No` to one category; a policy is asked as many questions.

ShieldGemma (arXiv 2407.21772) takes a category's description as the argument `guideline` of its chat template,
Granite Guardian (arXiv 2412.07724) a risk by name or with a definition of its own. Versions that reason or state a
confidence in text (Granite Guardian 3.2 and later) answer something else and are not covered.

Granite Guardian marks turns by the words `User Message:` and `Assistant Message:`; a line of a message that begins like
one is quoted. What its format leaves open: an assistant's message and the next one stand on one line. ShieldGemma's
format is for one message and marks none: several are one text to it.
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
        conversation=ConversationFormat({"user": "{content}", "assistant": "{content}"}),
        prompt=TemplatePrompt(_guideline),
        template_marks=("guideline", "Human Question"),
    ),
    GuardFamily(
        name="granite-guardian",
        grammar=_GRAMMAR,
        conversation=ConversationFormat(
            {"user": "User Message: {content}\n\n", "assistant": "Assistant Message: {content}"}
        ),
        prompt=TemplatePrompt(_risk),
        template_marks=("guardian_config", "risk_name"),
    ),
)
