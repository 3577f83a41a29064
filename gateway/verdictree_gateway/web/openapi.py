"""The HTTP interface as OpenAPI 3.1: schemas from the types that are read and written, with examples."""

from __future__ import annotations

from typing import Any

import msgspec

from verdictree.verdict import Verdict
from verdictree_gateway.policies import ServedPolicy
from verdictree_gateway.web import chat_messages, litellm, moderations, scores

_JSON = "application/json"
LITELLM = "/beta/litellm_basic_guardrail_api"
_TEMPLATE = "#/components/schemas/{name}"
_EXAMPLES: dict[str, Any] = {
    "/v1/moderations": {"input": "How do I pick a lock?"},
    "/v1/classify": {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "How do I pick a lock?"},
        ]
    },
    LITELLM: {"input_type": "request", "texts": ["How do I pick a lock?"]},
    "/v1/classify/batch": {"requests": [{"messages": [{"role": "user", "content": "How do I pick a lock?"}]}]},
}


class ErrorBody(msgspec.Struct):
    """Why there is no verdict; `code` is for programs, `request_id` for the log."""

    message: str
    type: str
    param: str | None
    code: str
    request_id: str


class Error(msgspec.Struct):
    """An error, in the shape that OpenAI's clients read."""

    error: ErrorBody


class Classified(msgspec.Struct):
    """A verdict, and what of the conversation the guard did not read."""

    verdict: Verdict
    left_out: tuple[str, ...]


class Outcome(msgspec.Struct):
    """One request's of a batch: a verdict with what was left out, or an error."""

    verdict: Verdict | None = None
    left_out: tuple[str, ...] = ()
    error: ErrorBody | None = None


class BatchAnswer(msgspec.Struct):
    """An outcome for each request, in their order."""

    results: list[Outcome]


class ModerationResult(msgspec.Struct, rename={"verdict": moderations.EXTENSION}):
    """One input's; keys are the codes of the policy's categories."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[str]]
    verdict: Verdict


class Moderation(msgspec.Struct):
    """The answer of /v1/moderations."""

    id: str
    model: str
    results: list[ModerationResult]


class PolicyCategory(msgspec.Struct):
    """One hazard of a policy; the score from which on it is for review, or is flagged, where there is one."""

    code: str
    name: str
    description: str
    roles: tuple[str, ...]
    review: float | None
    threshold: float | None


class ListedPolicy(msgspec.Struct):
    """A taxonomy by which the guard can be asked; `review` and `threshold` are those of P(unsafe)."""

    name: str
    version: str
    roles: tuple[str, ...]
    categories: list[PolicyCategory]
    review: float | None
    threshold: float | None


class PoliciesAnswer(msgspec.Struct):
    """The policies of the release that is pinned, the default first."""

    release: int
    policies: list[ListedPolicy]


def policy(served: ServedPolicy) -> ListedPolicy:
    """A policy as it is listed."""
    one, whole = served.policy, served.whole
    categories = [
        PolicyCategory(each.code, each.shown, each.description, each.roles, limits.review, limits.threshold)
        for each, limits in zip(one.categories, served.categories, strict=True)
    ]
    return ListedPolicy(one.name, one.version, one.roles, categories, whole.review, whole.threshold)


def document() -> dict[str, Any]:
    """The interface's description."""
    bodies: dict[str, tuple[Any, Any, str]] = {
        "/v1/moderations": (moderations.Request, Moderation, "OpenAI's moderations, with real scores"),
        "/v1/classify": (chat_messages.Classify, Classified, "The whole verdict on a conversation's last message"),
        LITELLM: (litellm.Request, litellm.Answer, "LiteLLM's generic guardrail API"),
        "/v1/classify/batch": (chat_messages.Batch, BatchAnswer, "The same for several conversations, each by itself"),
    }
    types: list[Any] = [Error, PoliciesAnswer, scores.Answer, chat_messages.ChatMessage]
    types += [kind for request, answer, _ in bodies.values() for kind in (request, answer)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_TEMPLATE)
    schema = dict(zip(types, schemas, strict=True))
    paths: dict[str, Any] = {}
    for path, (request, answer, summary) in bodies.items():
        body = {"schema": schema[request], "example": _EXAMPLES[path]}
        operation = {"requestBody": {"required": True, "content": {_JSON: body}}}
        paths[path] = {"post": {**_operation(path, summary, schema[answer], schema[Error]), **operation}}
    listed = _operation(
        "/v1/policies", "The policies by which this caller may ask", schema[PoliciesAnswer], schema[Error]
    )
    paths["/v1/policies"] = {"get": listed}
    summary = "Scores of the labelled rows that a policy was calibrated on, as counts"
    counted = _operation("/v1/scores", summary, schema[scores.Answer], schema[Error])
    named = {"name": "policy", "in": "query", "required": False, "schema": {"type": "string"}}
    paths["/v1/scores"] = {"get": {**counted, "parameters": [named]}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Verdictree", "version": "1", "description": "A calibrated guard, over HTTP."},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}, {}],
    }


def _operation(path: str, summary: str, answer: Any, error: Any) -> dict[str, Any]:
    return {
        "operationId": path.removeprefix("/v1/").removeprefix("/beta/").replace("/", "_"),
        "summary": summary,
        "responses": {
            "200": {"description": "The answer", "content": {_JSON: {"schema": answer}}},
            "default": {"description": "No answer", "content": {_JSON: {"schema": error}}},
        },
    }
