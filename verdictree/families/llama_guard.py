"""Llama Guard 1 to 4: `safe`, or `unsafe` and a line of codes.

Llama Guard 3 begins its answer with an empty line, 4 mostly does, 2 does not, and 1 begins it with a space. Llama Guard
3-1B and 4 take the categories as an argument of their chat template; in those of 1, 2 and 3-8B they are fixed. The
template of 4 writes a message's end as the four characters \\n\\n, and then two line breaks.

Turns are marked by the words `User:` and `Agent:`, which the makers' format lets a message spell too. Such a line is
quoted before the format is applied, so no message forges a turn. What the format leaves open: a message may spell
`<END CONVERSATION>` and the question after it, which are plain words as well.
"""

from __future__ import annotations

from verdictree.families.grammar import Answer, VerdictGrammar, label_list
from verdictree.families.guard_family import ConversationFormat, GuardFamily, Question, TemplatePrompt

_USER_AND_AGENT = ConversationFormat({"user": "User: {content}\n\n", "assistant": "Agent: {content}\n\n"})
_VERSION_4 = ConversationFormat({"user": "User: {content}\\n\\n\n\n", "assistant": "Agent: {content}\\n\\n\n\n"})


def _categories(question: Question) -> dict[str, dict[str, str]]:
    categories = question.policy.categories
    texts = {c.code: f"{c.name}." + (f"\n{c.description}" if c.description else "") for c in categories}
    return {"categories": texts}


def _answers(prefix: str) -> VerdictGrammar:
    return label_list(safe="safe", unsafe="unsafe", list_prefix="\n", separator=",", answer_prefix=prefix)


def _codes(letter: str, count: int) -> tuple[str, ...]:
    return tuple(f"{letter}{number}" for number in range(1, count + 1))


# Both begins were seen of version 4 (huggingface.co/blog/llama-guard-4 shows none, its first logits favour the other).
_ANSWERS_4 = VerdictGrammar(
    tuple(
        answer
        for begin in ("\n\n", "")
        for answer in (Answer(f"{begin}safe", "safe"), Answer(f"{begin}unsafe", "unsafe", "\n"))
    )
)


# The newest first: a template is recognized by what the older ones lack.
FAMILIES = (
    GuardFamily(
        "llama-guard-4",
        _ANSWERS_4,
        _VERSION_4,
        TemplatePrompt(_categories),
        _codes("S", 14),
        ("BEGIN CONVERSATION", "S13", "<|header_start|>"),
    ),
    GuardFamily(
        "llama-guard-3",
        _answers("\n\n"),
        _USER_AND_AGENT,
        TemplatePrompt(_categories),
        _codes("S", 14),
        ("BEGIN CONVERSATION", "S13"),
    ),
    GuardFamily(
        "llama-guard-2",
        _answers(""),
        _USER_AND_AGENT,
        TemplatePrompt(),
        _codes("S", 11),
        ("BEGIN CONVERSATION", "S11"),
    ),
    # Its tokenizer makes every first word one with a space before it.
    GuardFamily(
        "llama-guard-1",
        _answers(" "),
        _USER_AND_AGENT,
        TemplatePrompt(),
        _codes("O", 6),
        ("BEGIN CONVERSATION", "O1"),
    ),
)
