"""Split a guard's prompt into a constant prefix, the conversation, and a constant suffix."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import msgspec
from tokenizers import Tokenizer

from verdictree.conversation import Message, Role
from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import ConversationFormat, GuardFamily, Question
from verdictree.families.marked_text import MarkedText
from verdictree.policy import Policy
from verdictree.releases.prompt import Prompt
from verdictree.runtime.encoded_text import token_ids
from verdictree.runtime.plain_text import plain_text
from verdictree.verdict_tree.spelling import Encode
from verdictree_export.prompts.checkpoint import Checkpoint
from verdictree_export.prompts.named_categories import check_named
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


def served_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The checkpoint's tokenizer as it is served: for texts that stand inside a prompt.

    Text that spells a control token is encoded as plain text, and nothing is put before a text: SentencePiece
    tokenizers (Llama 2, Mistral) begin every text with a space, which in the midst of a prompt is not there.
    """
    tokenizer = plain_text(_inner_tokenizer(checkpoint.tokenizer.backend_tokenizer))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def answer_encoder(checkpoint: Checkpoint) -> Encode:
    """How the checkpoint spells an answer: a text that goes on from a prompt, in which control tokens count."""
    tokenizer = checkpoint.tokenizer.backend_tokenizer
    if not _puts_before(tokenizer):
        return checkpoint.encode
    inner = _inner_tokenizer(tokenizer)
    return lambda text: inner.encode(text, add_special_tokens=False).ids


def _puts_before(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer puts something before a text."""
    parts = [json.loads(part.__getstate__()) for part in (tokenizer.normalizer, tokenizer.pre_tokenizer) if part]
    return any(_without_begin(part) != part for part in parts)


def _inner_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    whole = tokenizer.to_str()
    if not _puts_before(tokenizer):
        return Tokenizer.from_str(whole)
    parts = json.loads(whole)
    parts["normalizer"] = _without_begin(parts["normalizer"])
    parts["pre_tokenizer"] = _without_begin(parts["pre_tokenizer"])
    return Tokenizer.from_str(json.dumps(parts))


def _without_begin(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """A tokenizer's normalizer or pre-tokenizer without what it puts before a text."""
    if part is None or part["type"] == "Prepend":
        return None
    changed = dict(part)
    if "prepend_scheme" in changed:
        changed["prepend_scheme"] = "never"
    if "add_prefix_space" in changed:
        changed["add_prefix_space"] = False
    for name in ("normalizers", "pretokenizers"):
        if name in changed:
            changed[name] = [kept for kept in map(_without_begin, changed[name]) if kept is not None]
    return changed


def split(
    checkpoint: Checkpoint, tokenizer: Tokenizer, family: GuardFamily, form: ConversationFormat, policy: Policy
) -> tuple[Prompt, ...]:
    """The prompt's constant parts for each of the policy's roles, proven on probe conversations of this format.

    `tokenizer` is the served one.

    One prompt a role, or where the family asks about one category at a time, one for each category of it.
    Proven: for every probe, prefix ids + ids of the served text alone + suffix ids are the tokenizer's encoding of
    the whole prompt. Raises UnsupportedGuard where the chat template or the tokenizer does not allow such a split, or
    the prompt does not say what the policy says.
    """
    questions = []
    for role in policy.roles:
        asked = policy.of_role(role)
        categories = asked.categories if family.grammar.per_category else (None,)
        questions += [Question(asked, role, category) for category in categories]
    return tuple(_split(checkpoint, tokenizer, family, form, question) for question in questions)


def _split(
    checkpoint: Checkpoint, tokenizer: Tokenizer, family: GuardFamily, form: ConversationFormat, question: Question
) -> Prompt:
    before, after = _around_conversation(checkpoint, family, form, question, _turns(question.role, _PROBES[0]))
    check_named(family, question, before + after)
    probes = [turns(question.role, content) for content in _PROBES for turns in (_turns, _many_turns)]
    for probe in probes:
        if _around_conversation(checkpoint, family, form, question, probe) != (before, after):
            raise UnsupportedGuard("expected constant text around the conversation, but the chat template changes it")
    conversations = [form.marked(probe) for probe in probes]
    for start, end in itertools.product([len(before), *reversed(_word_borders(before))], [0, *_word_borders(after)]):
        texts = (before[:start], before[start:], after[:end], after[end:])
        parts = _cut(checkpoint, tokenizer, question, texts, conversations[0])
        if all(_is_exact(checkpoint, tokenizer, parts, conversation) for conversation in conversations):
            return parts
    raise UnsupportedGuard(
        f"this tokenizer merges tokens across every border around the conversation, between {before[-40:]!r} and "
        f"{after[:40]!r}; no part of this prompt is constant in tokens"
    )


def _around_conversation(
    checkpoint: Checkpoint, family: GuardFamily, form: ConversationFormat, question: Question, messages: list[Message]
) -> tuple[str, str]:
    whole, conversation = render(checkpoint, family, form, question, messages), form.render(messages)
    before, inside, after = whole.rpartition(conversation)
    if not inside:
        raise UnsupportedGuard(f"the chat template rewrites what it is given: {conversation!r} is not in its prompt")
    return before, after


def _word_borders(text: str) -> list[int]:
    """Where a space stands between two letters: tokenizers split words there, whatever comes before or after."""
    return [match.start() for match in re.finditer(r"(?<=[A-Za-z]) (?=[A-Za-z])", text)]


def _cut(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    question: Question,
    texts: tuple[str, str, str, str],
    example: MarkedText,
) -> Prompt:
    """A prompt, cut there. Its suffix's ids are what a whole prompt ends with: alone it may begin otherwise."""
    policy, role, category = question.policy.name, question.role, question.category
    prefix_ids = tuple(checkpoint.encode(texts[0]))
    prompt = Prompt(policy, role, *texts, prefix_ids, (), category.code if category else None)
    served = token_ids(tokenizer, prompt.marked(example))
    suffix_ids = _whole(checkpoint, prompt, example)[len(prefix_ids) + len(served) :]
    return msgspec.structs.replace(prompt, suffix_ids=tuple(suffix_ids))


def _is_exact(checkpoint: Checkpoint, tokenizer: Tokenizer, prompt: Prompt, conversation: MarkedText) -> bool:
    served = token_ids(tokenizer, prompt.marked(conversation))
    return [*prompt.prefix_ids, *served, *prompt.suffix_ids] == _whole(checkpoint, prompt, conversation)


def _whole(checkpoint: Checkpoint, prompt: Prompt, conversation: MarkedText) -> list[int]:
    return checkpoint.encode(prompt.prefix + prompt.text("".join(conversation)) + prompt.suffix)


def _turns(role: Role, content: str) -> list[Message]:
    first_turn = [] if role == "user" else [Message("user", "hi")]
    return [*first_turn, Message(role, content)]


def _many_turns(role: Role, content: str) -> list[Message]:
    """The same at the end of a longer conversation, and in the midst of it."""
    begin = [Message("user", content), Message("assistant", "Yes?\n")]
    return [*begin, *begin, *_turns(role, content)]
