"""Split a guard's prompt into a constant prefix, the conversation, and a constant suffix."""

from __future__ import annotations

import itertools
import re

from tokenizers import Tokenizer

from verdictree.conversation import Message, Role
from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import GuardFamily, Question
from verdictree.policy import Policy
from verdictree.releases.prompt import Prompt
from verdictree.runtime.plain_text import plain_text
from verdictree_export.prompts.checkpoint import Checkpoint
from verdictree_export.prompts.rendering import render

_PROBES = (
    "hello",
    "How do I\n\n\nsort a list?\n",
    "  spaces around  ",
    "?!",
    "\n-\n",
    "12",
    "'s it, isn't",
    "\t\ttabs\t",
    "日本語のテキスト",
    "🙂👩‍👩‍👧",
    "<END>",
    ": colon",
    "e\u0301\u200b",
    "User: hi\n\nAgent: no",
)


def plain_text_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The checkpoint's tokenizer as it is served: text that spells a control token is encoded as plain text."""
    tokenizer = plain_text(Tokenizer.from_str(checkpoint.tokenizer.backend_tokenizer.to_str()))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def split(checkpoint: Checkpoint, family: GuardFamily, policy: Policy) -> tuple[Prompt, ...]:
    """The prompt's constant parts for each of the policy's roles, proven on probe conversations.

    One prompt a role, or where the family asks about one category at a time, one for each category of it.
    Proven: for every probe, prefix ids + ids of the served text alone + suffix ids are the tokenizer's encoding of
    the whole prompt. Raises UnsupportedGuard where the chat template or the tokenizer does not allow such a split.
    """
    asked = policy.categories if family.grammar.per_category else (None,)
    questions = [Question(policy, role, category) for role in policy.roles for category in asked]
    return tuple(_split(checkpoint, family, question) for question in questions)


def _split(checkpoint: Checkpoint, family: GuardFamily, question: Question) -> Prompt:
    before, after = _around_conversation(checkpoint, family, question, _turns(question.role, _PROBES[0]))
    _check_labels(family, question, before + after)
    probes = [_turns(question.role, content) for content in _PROBES]
    for probe in probes:
        if _around_conversation(checkpoint, family, question, probe) != (before, after):
            raise UnsupportedGuard("expected constant text around the conversation, but the chat template changes it")
    conversations = [family.conversation.render(probe) for probe in probes]
    tokenizer = plain_text_tokenizer(checkpoint)
    for start, end in itertools.product([len(before), *reversed(_word_borders(before))], [0, *_word_borders(after)]):
        parts = _cut(checkpoint, question, (before[:start], before[start:], after[:end], after[end:]))
        if all(_is_exact(checkpoint, tokenizer, parts, conversation) for conversation in conversations):
            return parts
    raise UnsupportedGuard(
        f"this tokenizer merges tokens across every border around the conversation, between {before[-40:]!r} and "
        f"{after[:40]!r}; no part of this prompt is constant in tokens"
    )


def _check_labels(family: GuardFamily, question: Question, constant: str) -> None:
    grammar, policy = family.grammar, question.policy
    if grammar.per_category:
        return
    answers = [answer for answer in grammar.answers if question.role in answer.roles]
    if all(answer.list_prefix is None for answer in answers):
        known = sorted({name for answer in answers for name in answer.names})
        missing = [code for code in policy.codes if code not in known]
        if missing:
            raise UnsupportedGuard(
                f"expected categories among {', '.join(known)}, which family {family.name} answers for messages of "
                f"role {question.role}, got {', '.join(missing)}; change the policy's categories or its roles"
            )
        return
    missing = [label for label in map(grammar.label, policy.categories) if label not in constant]
    if missing:
        raise UnsupportedGuard(
            f"the prompt never names {', '.join(missing)}: the checkpoint's chat template has fixed categories; "
            "use a policy with those"
        )


def _around_conversation(
    checkpoint: Checkpoint, family: GuardFamily, question: Question, messages: list[Message]
) -> tuple[str, str]:
    whole, conversation = render(checkpoint, family, question, messages), family.conversation.render(messages)
    before, inside, after = whole.rpartition(conversation)
    if not inside:
        raise UnsupportedGuard(f"the chat template rewrites what it is given: {conversation!r} is not in its prompt")
    return before, after


def _word_borders(text: str) -> list[int]:
    """Where a space stands between two letters: tokenizers split words there, whatever comes before or after."""
    return [match.start() for match in re.finditer(r"(?<=[A-Za-z]) (?=[A-Za-z])", text)]


def _cut(checkpoint: Checkpoint, question: Question, parts: tuple[str, str, str, str]) -> Prompt:
    prefix, before, after, suffix = parts
    prefix_ids, suffix_ids = (tuple(checkpoint.encode(text)) for text in (prefix, suffix))
    category = question.category.code if question.category else None
    return Prompt(question.policy.name, question.role, prefix, before, after, suffix, prefix_ids, suffix_ids, category)


def _is_exact(checkpoint: Checkpoint, tokenizer: Tokenizer, parts: Prompt, conversation: str) -> bool:
    text = parts.text(conversation)
    served = tokenizer.encode(text, add_special_tokens=False).ids
    return [*parts.prefix_ids, *served, *parts.suffix_ids] == checkpoint.encode(parts.prefix + text + parts.suffix)


def _turns(role: Role, content: str) -> list[Message]:
    first_turn = [] if role == "user" else [Message("user", "hi")]
    return [*first_turn, Message(role, content)]
