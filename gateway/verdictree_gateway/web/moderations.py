"""OpenAI's `POST /v1/moderations`: its request and its answer, with the policy's categories and real scores."""

from __future__ import annotations

from typing import Any

import msgspec

from verdictree.conversation import Conversation, Message, validated
from verdictree.errors import InvalidConversation
from verdictree.releases.decision import is_anything_flagged, is_flagged
from verdictree.text.visible import quoted
from verdictree.verdict import Verdict
from verdictree_gateway.web import chat_messages

MAX_INPUTS = 32
EXTENSION = "verdictree"  # the key under which our own fields stand in an answer of OpenAI's shape
_OPENAI_MODELS = ("omni-moderation-", "text-moderation-")


class Request(msgspec.Struct, frozen=True):
    """What is sent: one text, several, or one message's parts. `model` names a policy, or one of OpenAI's models."""

    input: str | list[str | dict[str, Any]]
    model: str | None = None


def conversations(request: Request) -> list[Conversation]:
    """One for each input, of a user's one message."""
    given = [request.input] if isinstance(request.input, str) else request.input
    texts = [one for one in given if isinstance(one, str)]
    parts = [one for one in given if isinstance(one, dict)]
    if texts and parts:
        raise InvalidConversation("expected texts, or the parts of one message, in input, got both; send two requests")
    if parts:
        texts = [chat_messages.text(parts, "input") or ""]
    if not 1 <= len(texts) <= MAX_INPUTS:
        raise InvalidConversation(f"expected 1 to {MAX_INPUTS} inputs, got {len(texts)}; send several requests")
    policy = policy_of(request.model)
    return [validated(Conversation((Message("user", one),), policy=policy, truncate="windows")) for one in texts]


def policy_of(model: str | None) -> str | None:
    """The policy that a `model` names; None, the default, for one of OpenAI's, so that callers need not change it."""
    if not model or model.startswith(_OPENAI_MODELS):
        return None
    if len(model) > 200:
        raise InvalidConversation(f"expected a policy's name in model, got {quoted(model)}")
    return model


def answer(request_id: str, verdicts: list[tuple[Verdict, bytes]]) -> dict[str, Any]:
    """What is answered: `categories` by the codes of the policy, `category_scores` calibrated where they are."""
    first = verdicts[0][0]
    return {
        "id": f"modr-{request_id}",
        "model": f"{first.policy}, release {first.release}",
        "results": [_result(verdict, body) for verdict, body in verdicts],
    }


def _result(verdict: Verdict, body: bytes) -> dict[str, Any]:
    scores = {
        score.code: score.marginal if score.calibrated is None else score.calibrated for score in verdict.categories
    }
    return {
        "flagged": is_anything_flagged(verdict),
        "categories": {score.code: is_flagged(verdict, score.code) for score in verdict.categories},
        "category_scores": scores,
        "category_applied_input_types": {code: ["text"] for code in scores},
        EXTENSION: msgspec.Raw(body),
    }
