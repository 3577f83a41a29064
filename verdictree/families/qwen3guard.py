"""Qwen3Guard-Gen: `Safety: Safe|Unsafe|Controversial`, a line of category names, after a response `Refusal: Yes|No`.

arXiv 2510.14276, section 2. The categories are fixed in the chat template; `Jailbreak` stands in the one about a user's
message only. Its template leaves the white space around a message as it is.

Turns are marked by the words `USER:` and `ASSISTANT:`; a line of a message that begins like one is quoted. What the
format leaves open: a message may spell the tags around the conversation.
"""

from __future__ import annotations

from verdictree.families.grammar import Answer, VerdictGrammar
from verdictree.families.guard_family import ConversationFormat, GuardFamily, TemplatePrompt

_NAMES = "\nCategories: "
_LABELS = (
    "Violent",
    "Non-violent Illegal Acts",
    "Sexual Content or Sexual Acts",
    "PII",
    "Suicide & Self-Harm",
    "Unethical Acts",
    "Politically Sensitive Topics",
    "Copyright Violation",
    "Jailbreak",
)

FAMILIES = (
    GuardFamily(
        name="qwen3guard",
        grammar=VerdictGrammar(
            answers=(
                Answer("Safety: Safe", "safe"),
                Answer("Safety: Unsafe", "unsafe", _NAMES),
                Answer("Safety: Controversial", "controversial", _NAMES),
            ),
            separator=", ",
            answer_suffixes=("", "\nRefusal: Yes", "\nRefusal: No"),
            labels_are="name",
        ),
        conversation=ConversationFormat(
            {"user": "USER: {content}\n\n", "assistant": "ASSISTANT: {content}\n\n"}, trims=False
        ),
        prompt=TemplatePrompt(),
        labels=_LABELS,
        template_marks=("Controversial", "Categories"),
    ),
)
