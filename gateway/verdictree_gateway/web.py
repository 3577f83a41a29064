"""HTTP: OpenAI's moderations, whole verdicts, policies, the interface's description, a page for people."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from verdictree.conversation import MAX_BYTES, Conversation, Truncate, validated
from verdictree.errors import InvalidConversation
from verdictree.text.visible import bounded
from verdictree_gateway import chat_messages, litellm, moderations, openapi
from verdictree_gateway.front import Caller, Front, known_id
from verdictree_gateway.page import routes as page
from verdictree_gateway.policies import Policies
from verdictree_gateway.refused import Reason, Refused

MAX_BATCH = 32
_BODY_SECONDS = 10.0
_MOST_BYTES_READ = 16 * MAX_BYTES  # of a body that is too large: most clients read an answer only once all is sent
_PORT = "http"
_REQUEST_ID = "x-request-id"
_TIMEOUT = "x-request-timeout"  # seconds
_QUOTED = 200
Body = TypeVar("Body")
Answer = Callable[[Caller, Request, float], Awaitable[Any]]


class Classify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A conversation in OpenAI's shape, and how it is judged; see `Conversation` for the last three."""

    messages: list[chat_messages.ChatMessage]
    policy: str | None = None
    truncate: Truncate | None = None
    routing_key: str | None = None


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several, each judged by itself."""

    requests: list[Classify]


class Web:
    """The HTTP endpoints of one gateway process."""

    def __init__(self, front: Front, policies: Policies) -> None:
        self._front, self._policies = front, policies

    def application(self) -> Starlette:
        """All of them, as an ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/moderations", self._endpoint(self._moderations), methods=["POST"]),
                Route("/v1/classify", self._endpoint(self._classify), methods=["POST"]),
                Route("/v1/classify/batch", self._endpoint(self._batch), methods=["POST"]),
                Route("/beta/litellm_basic_guardrail_api", self._endpoint(self._litellm), methods=["POST"]),
                Route("/v1/policies", self._endpoint(self._list), methods=["GET"]),
                Route("/openapi.json", _described, methods=["GET"]),
                *page.routes(),
            ],
            exception_handlers={404: _no_route, 405: _no_route},
        )

    def _endpoint(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            request_id = known_id(request.headers.get(_REQUEST_ID))
            try:
                caller = self._caller(request, request_id)
                content = await answer(caller, request, self._seconds(request))
                return _json(content, 200, {_REQUEST_ID: request_id})
            except Refused as exc:
                return refusal(exc, request_id)

        return endpoint

    def _caller(self, request: Request, request_id: str) -> Caller:
        said = request.headers
        key = said.get("x-api-key")  # as LiteLLM sends it
        authorization = said.get("authorization") or (key and f"Bearer {key}")
        try:
            return self._front.caller(_PORT, authorization, request_id, said.get("traceparent"))
        except Refused as exc:
            self._front.turned_away(_PORT, exc)
            raise

    def _seconds(self, request: Request) -> float:
        said = request.headers.get(_TIMEOUT)
        if said is None:
            return self._front.deadline
        try:
            seconds = float(said)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise self._invalid(InvalidConversation(f"expected seconds above 0 in {_TIMEOUT}, got another value"))
        return seconds

    async def _read(self, request: Request, kind: type[Body]) -> Body:
        try:
            return msgspec.json.decode(await _content(request), type=kind)
        except msgspec.ValidationError as exc:
            raise self._invalid(exc) from exc
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise self._invalid(InvalidConversation("expected one JSON object, got invalid JSON")) from exc
        except Refused as exc:
            self._front.turned_away(_PORT, exc)
            raise

    def _invalid(self, exc: Exception) -> Refused:
        refused = Refused(Reason.INVALID, bounded(str(exc), _QUOTED))
        self._front.turned_away(_PORT, refused)
        return refused

    async def _moderations(self, caller: Caller, request: Request, seconds: float) -> Any:
        asked = await self._read(request, moderations.Request)
        try:
            conversations = moderations.conversations(asked)
        except InvalidConversation as exc:
            raise self._invalid(exc) from exc
        verdicts = await asyncio.gather(*(self._front.verdict(caller, one, seconds) for one in conversations))
        return moderations.answer(caller.request_id, list(verdicts))

    async def _litellm(self, caller: Caller, request: Request, seconds: float) -> Any:
        asked = await self._read(request, litellm.Request)
        try:
            conversations = litellm.conversations(asked)
        except InvalidConversation as exc:
            raise self._invalid(exc) from exc
        found = await asyncio.gather(*(self._front.verdict(caller, one, seconds) for one in conversations))
        return litellm.answer(asked, [verdict for verdict, _ in found])

    async def _classify(self, caller: Caller, request: Request, seconds: float) -> Any:
        return await self._one(caller, await self._read(request, Classify), seconds)

    async def _batch(self, caller: Caller, request: Request, seconds: float) -> Any:
        asked = (await self._read(request, Batch)).requests
        if not 1 <= len(asked) <= MAX_BATCH:
            raise self._invalid(InvalidConversation(f"expected 1 to {MAX_BATCH} requests, got {len(asked)}"))

        async def outcome(one: Classify) -> Any:
            try:
                return await self._one(caller, one, seconds)
            except Refused as exc:
                return _error(exc, caller.request_id)

        return {"results": await asyncio.gather(*map(outcome, asked))}

    async def _one(self, caller: Caller, asked: Classify, seconds: float) -> Any:
        try:
            messages, left_out = chat_messages.read(asked.messages)
            conversation = validated(Conversation(messages, asked.policy, asked.truncate, asked.routing_key))
        except InvalidConversation as exc:
            raise self._invalid(exc) from exc
        _, body = await self._front.verdict(caller, conversation, seconds)
        return {"verdict": msgspec.Raw(body), "left_out": left_out}

    async def _list(self, caller: Caller, request: Request, seconds: float) -> Any:
        listed = self._policies.of(caller.account.tenant)
        return {"release": listed.release, "policies": [openapi.policy(one) for one in listed.policies]}


async def _content(request: Request) -> bytes:
    """The body, of bounded size and within bounded time; Refused where it is not."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(Reason.MEDIA_TYPE, "expected a body without content-encoding; send it as it is")
    too_large = Refused(Reason.TOO_LARGE, f"expected at most {MAX_BYTES} bytes; send fewer or shorter messages")
    parts, size = [], 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > _MOST_BYTES_READ:
                    raise too_large
                if size <= MAX_BYTES:
                    parts.append(part)
    except TimeoutError as exc:
        raise Refused(Reason.TOO_LATE, f"expected the whole body within {_BODY_SECONDS:g} s") from exc
    except ClientDisconnect as exc:
        raise Refused(Reason.INVALID, "the caller went away") from exc
    if size > MAX_BYTES:
        raise too_large
    return b"".join(parts)


def refusal(refused: Refused, request_id: str) -> Response:
    """The answer to a refused request."""
    headers = {_REQUEST_ID: request_id}
    if refused.retry_after is not None:
        headers["retry-after"] = str(max(1, round(refused.retry_after + 0.4)))
        headers["retry-after-ms"] = str(round(1000 * refused.retry_after))
    if refused.reason in (Reason.TOO_LARGE, Reason.TOO_LATE):
        headers["connection"] = "close"  # what is left of the body is not read
    return _json(_error(refused, request_id), refused.reason.http, headers)


def _error(refused: Refused, request_id: str) -> dict[str, Any]:
    said = {"message": str(refused), "type": refused.reason.kind, "param": None, "code": refused.reason.name.lower()}
    return {"error": {**said, "request_id": request_id}}


def _json(content: Any, status: int, headers: dict[str, str]) -> Response:
    return Response(
        msgspec.json.encode(content), status, {**headers, "x-content-type-options": "nosniff"}, "application/json"
    )


async def _described(_request: Request) -> Response:
    return _json(_DOCUMENT, 200, {})


async def _no_route(request: Request, exc: Exception) -> Response:
    refused = Refused(Reason.NOT_FOUND, "expected one of the paths in /openapi.json, got another path or method")
    return refusal(refused, known_id(request.headers.get(_REQUEST_ID)))


_DOCUMENT = openapi.document(Classify, Batch)
