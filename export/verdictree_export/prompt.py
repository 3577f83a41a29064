"""Split a guard's prompt into a constant prefix, the conversation, and a constant suffix."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Sequence

import jinja2
import msgspec
from tokenizers import Tokenizer

from verdictree.conversation import Message, Role
from verdictree.errors import UnsupportedGuard
from verdictree.families import GuardFamily
from verdictree.grammar import VerdictGrammar
from verdictree.policy import Policy
from verdictree.release import Prompt
from verdictree_export.checkpoint import Checkpoint

ROLES: tuple[Role, ...] = ("user", "assistant")

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
    tokenizer: Tokenizer = Tokenizer.from_str(checkpoint.tokenizer.backend_tokenizer.to_str())
    tokenizer.encode_special_tokens = True
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def render(checkpoint: Checkpoint, family: GuardFamily, policy: Policy, messages: list[Message]) -> str:
    """The whole prompt of a conversation, as the guard reads it."""
    if family.prompt is None:
        return _render_template(checkpoint, family, policy, messages)
    speaker = family.conversation.speaker(messages[-1].role)
    question = family.conversation.render(messages) + family.prompt.ask(policy, speaker)
    system = family.prompt.system(policy)
    try:
        return checkpoint.render([{"role": "system", "content": system}, {"role": "user", "content": question}])
    except jinja2.TemplateError as exc:  # the template's own refusal, for instance of system messages
        if "system" not in str(exc).lower():
            raise UnsupportedGuard(f"the checkpoint's chat template fails on the moderation prompt: {exc}") from exc
        return checkpoint.render([{"role": "user", "content": system + "\n\n" + question}])


def _render_template(checkpoint: Checkpoint, family: GuardFamily, policy: Policy, messages: list[Message]) -> str:
    """The prompt by the checkpoint's own moderation template.

    Some templates take a message's content as text, some as a list of parts (Llama Guard 3-1B), and the latter drop
    plain text without a word: the form is right if the conversation comes out.
    """
    categories = {c.code: f"{c.name}." + (f"\n{c.description}" if c.description else "") for c in policy.categories}
    as_text = [{"role": m.role, "content": m.content} for m in messages]
    as_parts = [{"role": m.role, "content": [{"type": "text", "text": m.content}]} for m in messages]
    for turns in (as_text, as_parts):
        with contextlib.suppress(jinja2.TemplateError, TypeError):  # what a template does with the form it is not for
            whole = checkpoint.render(turns, categories=categories)
            if family.conversation.render(messages) in whole:
                return whole
    raise UnsupportedGuard(
        f"expected the chat template to hold the conversation as {family.conversation.render(messages)!r}, as family "
        f"{family.name} does; it does not: choose the family that the checkpoint was made for"
    )


def split(checkpoint: Checkpoint, family: GuardFamily, policy: Policy) -> tuple[Prompt, ...]:
    """The prompt's constant parts for each role of ROLES, proven on probe conversations.

    Proven: for every probe, prefix ids + ids of the served text alone + suffix ids are the tokenizer's encoding of
    the whole prompt. Raises UnsupportedGuard where the chat template or the tokenizer does not allow such a split.
    """
    return tuple(_split_role(checkpoint, family, policy, role) for role in ROLES)


def _split_role(checkpoint: Checkpoint, family: GuardFamily, policy: Policy, role: Role) -> Prompt:
    before, after = _around_conversation(checkpoint, family, policy, _turns(role, _PROBES[0]))
    missing = [code for code in policy.codes if code not in before]
    if missing:
        raise UnsupportedGuard(
            f"the prompt never names {', '.join(missing)}: the checkpoint's chat template has fixed categories; "
            "use a policy with those"
        )
    probes = [_turns(role, content) for content in _PROBES]
    for probe in probes:
        if _around_conversation(checkpoint, family, policy, probe) != (before, after):
            raise UnsupportedGuard("expected constant text around the conversation, but the chat template changes it")
    conversations = [family.conversation.render(probe) for probe in probes]
    tokenizer = plain_text_tokenizer(checkpoint)
    for start, end in itertools.product([len(before), *reversed(_word_borders(before))], [0, *_word_borders(after)]):
        parts = _cut(checkpoint, role, before, start, after, end)
        if all(_is_exact(checkpoint, tokenizer, parts, conversation) for conversation in conversations):
            return parts
    raise UnsupportedGuard(
        f"this tokenizer merges tokens across every border around the conversation, between {before[-40:]!r} and "
        f"{after[:40]!r}; no part of this prompt is constant in tokens"
    )


def _around_conversation(
    checkpoint: Checkpoint, family: GuardFamily, policy: Policy, messages: list[Message]
) -> tuple[str, str]:
    whole, conversation = render(checkpoint, family, policy, messages), family.conversation.render(messages)
    before, found, after = whole.rpartition(conversation)
    if not found:
        raise UnsupportedGuard(f"the chat template rewrites what it is given: {conversation!r} is not in its prompt")
    return before, after


def _word_borders(text: str) -> list[int]:
    """Where a space stands between two letters: tokenizers split words there, whatever comes before or after."""
    return [match.start() for match in re.finditer(r"(?<=[A-Za-z]) (?=[A-Za-z])", text)]


def _cut(checkpoint: Checkpoint, role: Role, before: str, start: int, after: str, end: int) -> Prompt:
    prefix, suffix = before[:start], after[end:]
    ids = (tuple(checkpoint.encode(text)) for text in (prefix, suffix))
    return Prompt(role, prefix, before[start:], after[:end], suffix, *ids)


def _is_exact(checkpoint: Checkpoint, tokenizer: Tokenizer, parts: Prompt, conversation: str) -> bool:
    text = parts.lead + conversation + parts.tail
    served = tokenizer.encode(text, add_special_tokens=False).ids
    return [*parts.prefix_ids, *served, *parts.suffix_ids] == checkpoint.encode(parts.prefix + text + parts.suffix)


def _turns(role: Role, content: str) -> list[Message]:
    opening = [] if role == "user" else [Message("user", "hi")]
    return [*opening, Message(role, content)]


def grammar_after(prompts: Sequence[Prompt], grammar: VerdictGrammar) -> VerdictGrammar:
    """The grammar of what follows these prompts: without the lead where the chat template has written it already."""
    if grammar.lead and all(prompt.suffix.endswith(grammar.lead) for prompt in prompts):
        return msgspec.structs.replace(grammar, lead="")
    return grammar


def end_tokens(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The ids that end the model's turn: those its generation config declares and what its template writes there."""
    declared = checkpoint.model.generation_config.eos_token_id
    ends = {declared} if isinstance(declared, int) else set(declared or ())
    closing = _closing_token(checkpoint)
    if closing is not None:
        ends.add(closing)
    if not ends:
        raise UnsupportedGuard("the checkpoint names no end-of-turn token; set eos_token_id in its generation config")
    return tuple(sorted(ends))


def _closing_token(checkpoint: Checkpoint) -> int | None:
    answer = "safe"
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": answer}]
    text = checkpoint.tokenizer.apply_chat_template(turns, tokenize=False)
    after = text.rpartition(answer)[2]
    ids = checkpoint.encode(after)
    return ids[0] if ids and ids[0] in checkpoint.tokenizer.added_tokens_decoder else None
