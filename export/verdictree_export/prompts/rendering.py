"""The whole prompt as a guard reads it: by our words, by its chat template, or by its own moderation template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from verdictree import families
from verdictree.conversation import ROLES, Message
from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import ConversationFormat, GuardFamily, PlainPrompt, Question, TemplatePrompt
from verdictree_export.prompts.checkpoint import Checkpoint, ContentForm

_WORD = "heronsgate"  # which no prompt holds


def render(
    checkpoint: Checkpoint,
    family: GuardFamily,
    form: ConversationFormat,
    question: Question,
    messages: Sequence[Message],
) -> str:
    """The whole prompt that asks the question about a conversation, as the guard reads it; `form` is its format."""
    source = family.prompt
    if isinstance(source, TemplatePrompt):
        quoted = [Message(message.role, form.quoted(message.content)) for message in form.read(messages)]
        return template_text(checkpoint, family, question, quoted)
    asked = source.before(question) + form.render(messages) + source.after(question)
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


def template_text(checkpoint: Checkpoint, family: GuardFamily, question: Question, messages: Sequence[Message]) -> str:
    """What the checkpoint's own moderation template writes of these messages, word for word.

    Raises UnsupportedGuard, with the template's own reason if it gives one, where it does not write them.
    """
    forms, asked_by = checkpoint.content_forms, (family.name, checkpoint.template)
    if asked_by not in forms:
        forms[asked_by] = _content_form(checkpoint, family, question)
    try:
        return checkpoint.render(forms[asked_by](messages), **_arguments(family, question))
    except (jinja2.TemplateError, TypeError, ValueError) as exc:
        raise _refusal(family, question, f"it says {str(exc)!r}") from exc


def _content_form(checkpoint: Checkpoint, family: GuardFamily, question: Question) -> ContentForm:
    """How the template takes the content of a message.

    Most take text, some a list of parts (Llama Guard 3-1B). The latter drop plain text without a word, so the form is
    right in which a message comes out.
    """
    conversation = [Message(role, _WORD) for role in (*ROLES[: ROLES.index(question.role)], question.role)]
    reasons = []
    for form in (_as_text, _as_parts):
        try:
            if _WORD in checkpoint.render(form(conversation), **_arguments(family, question)):
                return form
        except (jinja2.TemplateError, TypeError, ValueError) as exc:
            # A refusal of the template's own, or what one does with the form that it is not for.
            reasons.append(str(exc))
    raise _refusal(family, question, f"it says {reasons[0]!r}" if reasons else "its text does not hold the message")


def _arguments(family: GuardFamily, question: Question) -> Mapping[str, Any]:
    return family.prompt.arguments(question) if isinstance(family.prompt, TemplatePrompt) else {}


def _refusal(family: GuardFamily, question: Question, said: str) -> UnsupportedGuard:
    asked = f"about a message of role {question.role}" + (
        f", risk {question.category.code!r}" if question.category else ""
    )
    return UnsupportedGuard(
        f"expected a chat template that family {family.name} can ask {asked}, but {said}: choose the family that the "
        f"checkpoint was made for ({', '.join(families.names())}), a policy that it takes, or one whose `roles` leave "
        f"out {question.role!r}"
    )


def _as_text(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _as_parts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": [{"type": "text", "text": message.content}]} for message in messages]
