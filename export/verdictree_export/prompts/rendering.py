"""The whole prompt as a guard reads it: by our words, by its chat template, or by its own moderation template."""

from __future__ import annotations

import contextlib

import jinja2

from verdictree import families
from verdictree.conversation import Message
from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import GuardFamily, PlainPrompt, Question, TemplatePrompt
from verdictree_export.prompts.checkpoint import Checkpoint


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
