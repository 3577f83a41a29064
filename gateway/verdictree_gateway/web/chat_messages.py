"""Conversations in OpenAI's shape, as the guard reads them, and what was left out of them.

    role                    becomes
    user, assistant         the same
    tool, function          user: text from outside, which the assistant reads
    system, developer       nothing: a guard judges what users and assistants say

    content                 becomes
    a text                  the text
    text and refusal parts  their texts, a line break between them
    null, with `refusal`    the refusal
    null, with tool calls   nothing: the message is left out
    image, audio, file      an error: the guard reads text only

`name`, tool calls and annotations are left out. What was left out is said with the verdict, message by message.
"""

from __future__ import annotations

from typing import Any

import msgspec

from verdictree.conversation import MAX_MESSAGES, Message, Role, Truncate
from verdictree.errors import InvalidConversation
from verdictree.text.visible import quoted

_ROLES: dict[str, Role | None] = {
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
    "function": "user",
    "system": None,
    "developer": None,
}
_TEXT_PARTS = {"text": "text", "refusal": "refusal", "input_text": "text", "output_text": "text"}


class ChatMessage(msgspec.Struct, frozen=True):
    """A message as OpenAI's Chat Completions have it; fields that are not named here are left out, and said."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None


class Classify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A conversation in OpenAI's shape, and how it is judged; see `Conversation` for the last four."""

    messages: list[ChatMessage]
    policy: str | None = None
    truncate: Truncate | None = None
    routing_key: str | None = None
    exact: bool = False


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several, each judged by itself."""

    requests: list[Classify]


def read(messages: list[ChatMessage]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The messages that the guard reads, and what was left out; InvalidConversation where nothing could be judged."""
    if not 1 <= len(messages) <= MAX_MESSAGES:
        raise InvalidConversation(f"expected 1 to {MAX_MESSAGES} messages, got {len(messages)}; send fewer")
    kept: list[Message] = []
    left_out: list[str] = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if message.role not in _ROLES:
            known = ", ".join(_ROLES)
            raise InvalidConversation(f"expected a role of {known} in {place}, got {quoted(message.role)}")
        role, content = _ROLES[message.role], text(message.content, place) or message.refusal
        left_out += [f"{place}.{name}" for name in ("name", "tool_calls") if getattr(message, name)]
        if role is None or not (content or "").strip():
            left_out.append(f"{place}: {message.role}" + ("" if role is None else ", without text"))
            if index == len(messages) - 1:
                raise InvalidConversation(f"expected text of a user or an assistant in {place}, the last, got none")
            continue
        if role != message.role:
            left_out.append(f"{place}.role: {message.role}, read as {role}")
        kept.append(Message(role, content or ""))
    return tuple(kept), tuple(left_out)


def text(content: str | list[dict[str, Any]] | None, place: str) -> str | None:
    """The text of a message's content; InvalidConversation for a part that is none."""
    if content is None or isinstance(content, str):
        return content
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type")
        found = part.get(_TEXT_PARTS[kind]) if isinstance(kind, str) and kind in _TEXT_PARTS else None
        if not isinstance(found, str):
            raise InvalidConversation(
                f"expected a part of type text in {place}.content[{index}], got {quoted(kind)}; leave it out"
            )
        texts.append(found)
    return "\n".join(texts)
