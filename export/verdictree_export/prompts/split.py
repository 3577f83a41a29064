"""Split a guard's prompt into a constant prefix, the conversation, and a constant suffix."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence

import jinja2
import msgspec
from tokenizers import Tokenizer

from verdictree import families
from verdictree.conversation import Message, Role
from verdictree.errors import InvalidPolicy, UnsupportedGuard
from verdictree.families.grammar import VerdictGrammar
from verdictree.families.guard_family import GuardFamily, PlainPrompt, Question, TemplatePrompt
from verdictree.policy import Policy
from verdictree.releases.release import Prompt
from verdictree.runtime.plain_text import is_control, plain_text
from verdictree.text.visible import quoted
from verdictree_export.prompts.checkpoint import Checkpoint

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


def render(checkpoint: Checkpoint, family: GuardFamily, question: Question, messages: list[Message]) -> str:
    """The whole prompt that asks the question about a conversation, as the guard reads it."""
    source = family.prompt
    if isinstance(source, TemplatePrompt):
        return _render_template(checkpoint, family, source, question, messages)
    asked = source.before(question) + family.conversation.render(messages) + source.after(question)
    if isinstance(source, PlainPrompt):
        return asked
    if not checkpoint.tokenizer.chat_template:
        raise UnsupportedGuard(f"{checkpoint.name!r} has no chat template, through which family {family.name} is asked")
    system, user = source.system(question), {"role": "user", "content": asked}
    if not system:
        return checkpoint.render([user])
    try:
        return checkpoint.render([{"role": "system", "content": system}, user])
    except jinja2.TemplateError as exc:  # the template's own refusal, for instance of system messages
        if "system" not in str(exc).lower():
            raise UnsupportedGuard(f"the checkpoint's chat template fails on the moderation prompt: {exc}") from exc
        return checkpoint.render([{"role": "user", "content": system + "\n\n" + asked}])


def _render_template(
    checkpoint: Checkpoint, family: GuardFamily, source: TemplatePrompt, question: Question, messages: list[Message]
) -> str:
    """The prompt by the checkpoint's own moderation template.

    Some templates take a message's content as text, some as a list of parts (Llama Guard 3-1B), and the latter drop
    plain text without a word: the form is right if the conversation comes out.
    """
    arguments, conversation = source.arguments(question), family.conversation.render(messages)
    texts = [(m.role, family.conversation.quoted(m.content)) for m in messages]
    as_text = [{"role": role, "content": text} for role, text in texts]
    as_parts = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts]
    for turns in (as_text, as_parts):
        # what a template, or a checkpoint without one, does with the form it is not for
        with contextlib.suppress(jinja2.TemplateError, TypeError, ValueError):
            whole = checkpoint.render(turns, **arguments)
            if conversation in whole:
                return whole
    raise UnsupportedGuard(
        f"expected the chat template to hold a conversation as {conversation!r}, as family {family.name} does; it does "
        f"not: choose the family that the checkpoint was made for ({', '.join(families.names())}), or a policy whose "
        f"`roles` leave out {question.role!r}"
    )


def check_policy(checkpoint: Checkpoint, policy: Policy) -> None:
    """Raise InvalidPolicy, naming the place, where a policy's text spells a control token: it could end its turn."""
    tokenizer = checkpoint.tokenizer
    added = {i: one.content for i, one in tokenizer.added_tokens_decoder.items() if is_control(one)}
    added.pop(tokenizer.unk_token_id, None)  # what the tokenizer does not know is no token that the text spells
    for place, text in _texts(policy):
        spelled = [added[i] for i in checkpoint.encode(text) if i in added]
        spelled += [token for token in added.values() if token in text]
        if spelled:
            raise InvalidPolicy(
                f"expected plain text in {place} of policy {policy.name!r}, got {quoted(text)}, which spells the "
                f"control token {spelled[0]!r}; write it otherwise"
            )


def _texts(policy: Policy) -> Iterator[tuple[str, str]]:
    for index, category in enumerate(policy.categories):
        for name in ("code", "name", "description"):
            yield f"categories[{index}].{name}", getattr(category, name)
    yield "instructions", policy.instructions


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
    before, found, after = whole.rpartition(conversation)
    if not found:
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


def grammar_after(prompts: Sequence[Prompt], grammar: VerdictGrammar) -> VerdictGrammar:
    """The grammar of what follows these prompts: no answer prefix where the chat template has written it already."""
    if grammar.answer_prefix and all(prompt.suffix.endswith(grammar.answer_prefix) for prompt in prompts):
        return msgspec.structs.replace(grammar, answer_prefix="")
    return grammar


def end_tokens(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The ids that end the model's turn: those its generation config declares and what its template writes there."""
    declared = checkpoint.model.generation_config.eos_token_id
    ends = {declared} if isinstance(declared, int) else set(declared or ())
    turn_end = _turn_end_token(checkpoint)
    if turn_end is not None:
        ends.add(turn_end)
    if not ends:
        raise UnsupportedGuard("the checkpoint names no end-of-turn token; set eos_token_id in its generation config")
    return tuple(sorted(ends))


def _turn_end_token(checkpoint: Checkpoint) -> int | None:
    answer = "safe"
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": answer}]
    try:
        text = checkpoint.tokenizer.apply_chat_template(turns, tokenize=False)
    except (jinja2.TemplateError, TypeError, ValueError):  # no template, or one that cannot do without a question
        return None
    after = text.rpartition(answer)[2]
    ids = checkpoint.encode(after)
    return ids[0] if ids and ids[0] in checkpoint.tokenizer.added_tokens_decoder else None
