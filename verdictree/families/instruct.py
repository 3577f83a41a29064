"""Any instruction-tuned model, with a moderation prompt of ours: `safe`, or `unsafe` and a line of codes.

Turns are marked by the words `User:` and `Agent:`. A line of a message that begins like one is quoted, so no message
reads as several.
"""

from __future__ import annotations

from verdictree.families.grammar import label_list
from verdictree.families.guard_family import ChatPrompt, ConversationFormat, GuardFamily, Question, category_lines

_TASK = (
    "You are a content moderator. You read a conversation between a User and an Agent and judge only its last message. "
    "If it is harmless, answer safe. Otherwise answer unsafe, and on a new line the codes of its hazard categories, "
    "separated by commas. The hazard categories are:"
)
_SPEAKERS = {"user": "User", "assistant": "Agent"}


def _system(question: Question) -> str:
    return _TASK + "\n\n" + category_lines(question.policy)


def _ask(question: Question) -> str:
    text = f"Judge the last message, from the {_SPEAKERS[question.role]}: safe, or unsafe and its codes."
    return text + (f"\n{question.policy.instructions}" if question.policy.instructions else "")


FAMILIES = (
    GuardFamily(
        name="instruct",
        grammar=label_list(safe="safe", unsafe="unsafe", list_prefix="\n", separator=","),
        conversation=ConversationFormat({"user": "User: {content}\n\n", "assistant": "Agent: {content}\n\n"}),
        prompt=ChatPrompt(_system, before=lambda _question: "", after=_ask),
    ),
)
