"""The request: a conversation as JSON, validated and bounded before anything is computed."""

from __future__ import annotations

import codecs
import re
from typing import Literal

import msgspec

from verdictree.errors import InvalidConversation
from verdictree.text.visible import bounded

MAX_MESSAGES = 256
MAX_BYTES = 512 * 1024

Role = Literal["user", "assistant"]
Truncate = Literal["head", "windows"]
ROLES: tuple[Role, ...] = ("user", "assistant")


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Role
    content: str


class Conversation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The messages to judge; the guard's verdict is about the last one.

    `policy` names one of the release's policies (None: the release's default).
    A conversation that is longer than the release's limit is refused. With `truncate="head"` its oldest tokens are
    dropped; with `truncate="windows"` overlapping parts of it are judged, each as if it were the conversation, and the
    verdict is the worst of them, category by category, at the price of as many conversations.
    Requests of one `routing_key` (a user's or a session's id) are answered by the same release while a canary runs;
    without one, those of the same messages are. It changes no score.
    With `exact` the guard reads the conversation through all its layers, where others may leave early.
    """

    messages: tuple[Message, ...]
    policy: str | None = None
    truncate: Truncate | None = None
    routing_key: str | None = None
    exact: bool = False

    @property
    def judged_role(self) -> Role:
        """The role of the last message: the one that the verdict is about."""
        return self.messages[-1].role

    def to_json(self) -> bytes:
        """The request body as UTF-8 JSON, bytes that `parse` reads back."""
        try:
            return msgspec.json.encode(self)
        except UnicodeEncodeError as exc:
            raise InvalidConversation(
                "expected text that UTF-8 can hold, got a lone surrogate; decode the text with errors='replace'"
            ) from exc


_decoder = msgspec.json.Decoder(Conversation)


def parse(body: bytes) -> Conversation:
    """Read a request body.

    Raises InvalidConversation for anything but UTF-8 JSON (with or without a byte order mark) of a `Conversation` with
    at least one message, no empty content, at most MAX_MESSAGES messages and MAX_BYTES bytes.
    """
    if len(body) > MAX_BYTES:
        raise InvalidConversation(
            f"expected at most {MAX_BYTES} bytes of JSON, got {len(body)}; send fewer or shorter messages"
        )
    try:
        conversation = _decoder.decode(without_mark(body))
    except msgspec.ValidationError as exc:
        raise InvalidConversation(f"{_lower_first(bounded(str(exc), _QUOTED))}; {_EXAMPLE}") from exc
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as exc:
        raise InvalidConversation(_json_fault(body, exc)) from exc
    return validated(conversation)


def without_mark(text: bytes) -> bytes:
    """UTF-8 text without the byte order mark that Windows programs write before it."""
    return text.removeprefix(codecs.BOM_UTF8)


def _json_fault(body: bytes, exc: Exception) -> str:
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "expected UTF-8, got UTF-16; encode the request as UTF-8"
    escapes = body.replace(rb"\\", b"  ")  # an escaped backslash begins no escape
    if _ESCAPED_SURROGATE.search(escapes) or _ENCODED_SURROGATE.search(body):
        return "expected Unicode text, got a lone surrogate; cut texts between characters, not inside an emoji"
    if isinstance(exc, UnicodeDecodeError):
        return "expected UTF-8, got other bytes; encode the request as UTF-8"
    reason = "nested too deep" if isinstance(exc, RecursionError) else str(exc)
    return f"expected one JSON object, got invalid JSON ({reason}); {_EXAMPLE}"


def validated(conversation: Conversation) -> Conversation:
    """The same conversation, or InvalidConversation where the types hold and the content does not."""
    count = len(conversation.messages)
    if not 1 <= count <= MAX_MESSAGES:
        raise InvalidConversation(f"expected 1 to {MAX_MESSAGES} messages, got {count}; {_EXAMPLE}")
    for index, message in enumerate(conversation.messages):
        if not message.content.strip():
            raise InvalidConversation(
                f"expected text in messages[{index}].content, got an empty string; leave the message out"
            )
        if _SURROGATE.search(message.content):
            raise InvalidConversation(
                f"expected Unicode text in messages[{index}].content, got a lone surrogate; "
                "decode the text with errors='replace'"
            )
    for name in ("policy", "routing_key"):
        if _SURROGATE.search(getattr(conversation, name) or ""):
            raise InvalidConversation(f"expected Unicode text in {name}, got a lone surrogate; name another")
    return conversation


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


_EXAMPLE = 'send {"messages": [{"role": "user", "content": "…"}]}, roles user and assistant'
_QUOTED = 200  # characters of a decoder's message, which quotes roles and keys whole
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ENCODED_SURROGATE = re.compile(rb"\xed[\xa0-\xbf]")  # which UTF-8 forbids
# A high half without a low one after it, or the reverse.
_ESCAPED_SURROGATE = re.compile(
    rb"\\u[dD](?:[89abAB][\da-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][\da-fA-F]{2}\\u[dD])[c-fC-F])"
)
