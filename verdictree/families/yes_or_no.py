"""ShieldGemma and Granite Guardian: `Yes` or `No` to one category; a policy is asked as many questions.

ShieldGemma (arXiv 2407.21772) takes a category's description as the argument `guideline` of its chat template,
Granite Guardian (arXiv 2412.07724) a risk by name or with a definition of its own. What Granite Guardian 3.2 says after
its `Yes` or `No`, a confidence, is not looked at. Version 3.3 is asked without thinking, and answers `yes` or `no` as a
score after an empty thought; with one line break before the score as a rule, two were seen.

ShieldGemma reads the last message, or a response and the message before it, each as a turn between control tokens.
Granite Guardian 3.3 reads the whole conversation, each message as a turn of its own. Granite Guardian before reads the
last message only, an assistant's with the user's before it, in one turn, and marks them by the words `User Message:`
and `Assistant Message:`; a line of a message that begins like one is quoted, as is one like ShieldGemma's
`Human Question:` and `Chatbot Response:`. All leave white space around a message as it is. What the formats leave open:
a message may spell the marks around the conversation, where those are words.
"""

from __future__ import annotations

from typing import Any

from verdictree.errors import UnsupportedGuard
from verdictree.families.grammar import Answer, VerdictGrammar
from verdictree.families.guard_family import ConversationFormat, GuardFamily, Question, TemplatePrompt
from verdictree.policy import Category

_GRAMMAR = VerdictGrammar((Answer("No", "safe"), Answer("Yes", "unsafe")), per_category=True)
_SCORES = VerdictGrammar(
    (
        Answer("\n<score> no", "safe"),
        Answer("\n<score> yes", "unsafe"),
        Answer("\n\n<score> no", "safe"),
        Answer("\n\n<score> yes", "unsafe"),
    ),
    answer_prefix="<think>\n</think>",
    per_category=True,
)
_GRANITE_TURN = "<|start_of_role|>%s<|end_of_role|>{content}<|end_of_text|>\n"


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


def _criterion(question: Question) -> dict[str, Any]:
    category = _category(question)
    criterion = {"custom_criteria": category.description} if category.description else {"criteria_id": category.code}
    return {"guardian_config": criterion, "think": False}


# The newest Granite Guardian first: a template is recognized by what the older ones lack.
FAMILIES = (
    GuardFamily(
        name="shieldgemma",
        grammar=_GRAMMAR,
        conversation=ConversationFormat(
            {
                "user": "<start_of_turn>\nHuman Question: {content}\n<end_of_turn>\n",
                "assistant": "<start_of_turn>\nChatbot Response: {content}\n<end_of_turn>\n",
            },
            trims=False,
            reads={"user": ("user",), "assistant": ("user", "assistant")},
            control_tokens=("<start_of_turn>", "<end_of_turn>"),
        ),
        prompt=TemplatePrompt(_guideline),
        template_marks=("guideline", "Human Question"),
    ),
    GuardFamily(
        name="granite-guardian-3.3",
        grammar=_SCORES,
        conversation=ConversationFormat(
            {"user": _GRANITE_TURN % "user", "assistant": _GRANITE_TURN % "assistant"},
            trims=False,
            control_tokens=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
        ),
        prompt=TemplatePrompt(_criterion),
        template_marks=("guardian_config", "criteria_id"),
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
