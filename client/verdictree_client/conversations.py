"""What callers pass, as a conversation: checked here, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import msgspec

from verdictree.conversation import MAX_MESSAGES, Conversation, Message, Truncate, parse, validated
from verdictree.errors import InvalidConversation
from verdictree.text.visible import bounded, quoted
from verdictree_client.errors import InvalidRequest, InvalidSettings

Messages = str | Sequence[Mapping[str, str]] | Sequence[Message] | Conversation


def conversation_of(
    messages: Messages,
    policy: str | None = None,
    truncate: Truncate | None = None,
    routing_key: str | None = None,
    exact: bool = False,
) -> Conversation:
    """The conversation; InvalidRequest for what the server would refuse. The other arguments override its own."""
    if isinstance(messages, Conversation):
        policy, truncate = policy or messages.policy, truncate or messages.truncate
        exact = exact or messages.exact
        routing_key = messages.routing_key if routing_key is None else routing_key
        messages = messages.messages
    elif isinstance(messages, str):
        messages = [Message("user", messages)]
    fields = {"messages": _turns(messages), "policy": policy, "truncate": truncate, "routing_key": routing_key}
    fields["exact"] = exact
    try:
        conversation = msgspec.convert({name: _exact(value) for name, value in fields.items()}, Conversation)
        return parse(validated(conversation).to_json())
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"{bounded(str(exc), 200)}; give a str or messages such as {_EXAMPLE}") from exc
    except UnicodeEncodeError as exc:
        raise InvalidRequest("expected Unicode text, got a lone surrogate in a role or in a field's name") from exc
    except InvalidConversation as exc:
        raise InvalidRequest(str(exc)) from exc


def check_bulk(items: object, concurrency: int) -> None:
    """Refuse at once, not at the first verdict, what `classify_many` cannot mean."""
    if isinstance(items, str):
        raise InvalidRequest("expected an iterable of conversations, got one str; pass it to classify, or in a list")
    if concurrency < 1:
        raise InvalidSettings(f"expected a concurrency of 1 or more, got {concurrency}; 1 sends one request at a time")


def _turns(messages: object) -> object:
    """The messages as plain lists, dicts and str where they are such; what is neither is left for the error."""
    if isinstance(messages, bytes | bytearray | str | Mapping) or not isinstance(messages, Iterable):
        return messages
    try:
        # One more than a request may have, which is enough to refuse it.
        return [_fields(message) for message in islice(messages, MAX_MESSAGES + 1)]
    except TypeError as exc:  # numpy's arrays without dimensions say that they can be iterated over
        raise InvalidRequest(f"expected a str or messages such as {_EXAMPLE}, got {quoted(messages)}") from exc


def _fields(message: object) -> object:
    # Unfolded, since convert trusts a Message that was built with the wrong types.
    if isinstance(message, Message):
        message = msgspec.structs.asdict(message)
    if isinstance(message, Mapping):
        return {_exact(key): _exact(value) for key, value in message.items()}
    return message


def _exact(value: object) -> object:
    # Subclasses of str (numpy's, enumerations, marked up text) are text; msgspec takes str itself only.
    return str.__str__(value) if isinstance(value, str) else value


_EXAMPLE = '[{"role": "user", "content": "…"}], roles user and assistant'
