"""LiteLLM's generic guardrail API: `POST /beta/litellm_basic_guardrail_api`, its request and its answer.

    input_type  judged
    request     the last of `structured_messages` in its conversation; without those, each of `texts` as a user's
    response    each of `texts` as the assistant's

LiteLLM knows two answers to a text: BLOCKED, with words for the caller, and NONE. What is flagged is blocked; what is
for review passes, unless the guardrail's `additional_provider_specific_params` say `block_review: true`. Their `policy`
names the policy. Images are refused, so that LiteLLM fails closed; tool calls without text are not judged.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from verdictree.conversation import Conversation, Message, Role, validated
from verdictree.errors import InvalidConversation
from verdictree.releases.decision import is_anything_flagged, is_flagged
from verdictree.verdict import Verdict
from verdictree_gateway.web import chat_messages

MAX_TEXTS = 32


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What LiteLLM's configuration says for this guardrail."""

    policy: str | None = None
    block_review: bool = False


class Request(msgspec.Struct, frozen=True):
    """What LiteLLM sends, of which the fields about its caller and the model are left out."""

    input_type: Literal["request", "response"]
    texts: list[str] | None = None
    structured_messages: list[chat_messages.ChatMessage] | None = None
    images: list[str] | None = None
    additional_provider_specific_params: Parameters | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What LiteLLM reads; `blocked_reason` goes to its caller."""

    action: Literal["BLOCKED", "NONE"]
    blocked_reason: str | None = None


def conversations(request: Request) -> list[Conversation]:
    """What is judged, each by itself; none where there is no text."""
    if request.images:
        raise InvalidConversation(f"expected no images, got {len(request.images)}; the guard reads text only")
    policy = parameters(request).policy
    if request.input_type == "request" and request.structured_messages:
        messages, _ = chat_messages.read(request.structured_messages)
        return [validated(Conversation(messages, policy, "windows"))]
    role: Role = "user" if request.input_type == "request" else "assistant"
    texts = [text for text in request.texts or () if text.strip()]
    if len(texts) > MAX_TEXTS:
        raise InvalidConversation(f"expected at most {MAX_TEXTS} texts, got {len(texts)}; send several requests")
    return [validated(Conversation((Message(role, text),), policy, "windows")) for text in texts]


def parameters(request: Request) -> Parameters:
    """What the configuration says, or the defaults."""
    return request.additional_provider_specific_params or Parameters()


def answer(request: Request, verdicts: list[Verdict]) -> Answer:
    """BLOCKED where one of the verdicts is flagged, or for review and that is to be blocked too."""
    for verdict in verdicts:
        if is_anything_flagged(verdict):
            names = [score.name for score in verdict.ranked if is_flagged(verdict, score.code)]
            return Answer("BLOCKED", f"flagged by policy {verdict.policy}: {', '.join(names) or 'unsafe'}")
        if verdict.action == "review" and parameters(request).block_review:
            return Answer("BLOCKED", f"held for review by policy {verdict.policy}")
    return Answer("NONE")
