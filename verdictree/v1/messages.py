"""Conversations and verdicts as messages of `guard.proto`, and back, without loss."""

from __future__ import annotations

from typing import Any

import msgspec

from verdictree.conversation import Conversation, Message, Role, Truncate, validated
from verdictree.errors import InvalidConversation
from verdictree.policy import Category, Policy
from verdictree.v1 import guard_pb2 as pb
from verdictree.verdict import CategoryScore, GreedyVerdict, Place, Verdict, Window

_ROLES: dict[int, Role] = {pb.ROLE_USER: "user", pb.ROLE_ASSISTANT: "assistant"}
_ROLE_NUMBERS: dict[str, Any] = {name: number for number, name in _ROLES.items()}
_TRUNCATES: dict[int, Truncate | None] = {
    pb.TRUNCATE_UNSPECIFIED: None,
    pb.TRUNCATE_HEAD: "head",
    pb.TRUNCATE_WINDOWS: "windows",
}
_TRUNCATE_NUMBERS: dict[Truncate | None, Any] = {name: number for number, name in _TRUNCATES.items()}


def request(conversation: Conversation) -> pb.ClassifyRequest:
    """The request for a verdict on a conversation."""
    return pb.ClassifyRequest(
        messages=[pb.Message(role=_ROLE_NUMBERS[one.role], content=one.content) for one in conversation.messages],
        policy=conversation.policy or "",
        truncate=_TRUNCATE_NUMBERS[conversation.truncate],
        routing_key=conversation.routing_key or "",
        exact=conversation.exact,
    )


def conversation(request: pb.ClassifyRequest) -> Conversation:
    """The conversation that a request asks about; InvalidConversation where it is none."""
    for index, message in enumerate(request.messages):
        if message.role not in _ROLES:
            raise InvalidConversation(
                f"expected ROLE_USER or ROLE_ASSISTANT in messages[{index}].role, got {message.role}; say who wrote it"
            )
    if request.truncate not in _TRUNCATES:
        raise InvalidConversation(
            f"expected TRUNCATE_HEAD or TRUNCATE_WINDOWS in truncate, got {request.truncate}; or leave it out"
        )
    return validated(
        Conversation(
            messages=tuple(Message(_ROLES[one.role], one.content) for one in request.messages),
            policy=request.policy or None,
            truncate=_TRUNCATES[request.truncate],
            routing_key=request.routing_key or None,
            exact=request.exact,
        )
    )


def roles(names: tuple[Role, ...]) -> list[Any]:
    """The numbers of these roles."""
    return [_ROLE_NUMBERS[name] for name in names]


def answer(verdict: Verdict) -> pb.Verdict:
    """A verdict as a message; what it does not say is absent."""
    fields = {**msgspec.structs.asdict(verdict), "role": _ROLE_NUMBERS[verdict.role]}
    fields["categories"] = [pb.CategoryScore(**_known(msgspec.structs.asdict(one))) for one in verdict.categories]
    fields["greedy"] = pb.GreedyVerdict(**msgspec.structs.asdict(verdict.greedy))
    fields["windows"] = [
        pb.Window(begin=_place(one.begin), end=_place(one.end), p_unsafe=one.p_unsafe) for one in verdict.windows
    ]
    return pb.Verdict(**_known(fields))


def verdict(message: pb.Verdict) -> Verdict:
    """The verdict that a message holds."""
    return Verdict(
        release=message.release,
        policy=message.policy,
        role=_ROLES[message.role],
        categories=tuple(CategoryScore(**_said(one, CategoryScore)) for one in message.categories),
        greedy=GreedyVerdict(message.greedy.text, tuple(message.greedy.labels), message.greedy.complete),
        windows=tuple(Window(_read(one.begin), _read(one.end), one.p_unsafe) for one in message.windows),
        **{key: value for key, value in _said(message, Verdict).items() if key not in _NOT_PLAIN},
    )


def policies(message: pb.ListPoliciesResponse) -> tuple[Policy, ...]:
    """The policies that a message lists, with the thresholds that are in effect; KeyError for a role of tomorrow."""
    return tuple(
        Policy(
            name=one.name,
            version=one.version,
            categories=tuple(
                Category(code=each.code, name=each.name, description=each.description, **_limits(each))
                for each in one.categories
            ),
            **_limits(one),
        )
        for one in message.policies
    )


def _limits(message: Any) -> dict[str, Any]:
    """From whose messages on, and which scores, a policy or a category acts."""
    limits = {name: getattr(message, name) if message.HasField(name) else None for name in ("review", "threshold")}
    return {"roles": tuple(_ROLES[role] for role in message.roles), **limits}


_NOT_PLAIN = ("release", "policy", "role", "categories", "greedy", "windows")
_ACTIONS = {pb.ACTION_ALLOW: "allow", pb.ACTION_REVIEW: "review", pb.ACTION_BLOCK: "block"}
_ACTION_NUMBERS = {name: number for number, name in _ACTIONS.items()}


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a message, without those that are None."""
    known = {key: value for key, value in fields.items() if value is not None}
    if "action" in known:
        known["action"] = _ACTION_NUMBERS[known["action"]]
    return known


def _said(message: Any, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Fields of a struct that a message says, None for those that it leaves out."""
    fields: dict[str, Any] = {}
    for name in kind.__struct_fields__:
        field = message.DESCRIPTOR.fields_by_name[name]
        fields[name] = getattr(message, name) if not field.has_presence or message.HasField(name) else None
    if "action" in fields:
        fields["action"] = _ACTIONS.get(fields["action"])
    return fields


def _read(place: Any) -> Place:
    return Place(place.message, place.character)


def _place(place: Place) -> pb.Place:
    return pb.Place(message=place.message, character=place.character)
