"""Llama Guard 1 to 4: `safe`, or `unsafe` and a line of codes.

Llama Guard 3 and 4 begin their answer with an empty line, 1 and 2 do not. 3 and 4 take the categories as an argument
of their chat template; in those of 1 and 2 they are fixed.

Turns are marked by the words `User:` and `Agent:`, which the makers' format lets a message spell too. Such a line is
quoted before the format is applied, so no message forges a turn. What the format leaves open: a message may spell
`<END CONVERSATION>` and the question after it, which are plain words as well.
"""

from __future__ import annotations

from verdictree.families.grammar import label_list
from verdictree.families.guard_family import ConversationFormat, GuardFamily, Question, TemplatePrompt

_USER_AND_AGENT = ConversationFormat({"user": "User: {content}\n\n", "assistant": "Agent: {content}\n\n"})


def _categories(question: Question) -> dict[str, dict[str, str]]:
    categories = question.policy.categories
    texts = {c.code: f"{c.name}." + (f"\n{c.description}" if c.description else "") for c in categories}
    return {"categories": texts}


def _family(version: int, answer_prefix: str, prompt: TemplatePrompt, *marks: str) -> GuardFamily:
    grammar = label_list(safe="safe", unsafe="unsafe", list_prefix="\n", separator=",", answer_prefix=answer_prefix)
    return GuardFamily(f"llama-guard-{version}", grammar, _USER_AND_AGENT, prompt, ("BEGIN CONVERSATION", *marks))


# The newest first: a template is recognized by what the older ones lack.
FAMILIES = (
    _family(4, "\n\n", TemplatePrompt(_categories), "S13", "<|header_start|>"),
    _family(3, "\n\n", TemplatePrompt(_categories), "S13"),
    _family(2, "", TemplatePrompt(), "S11"),
    _family(1, "", TemplatePrompt(), "O1"),
)
