"""HTTP: OpenAI's moderations, whole verdicts, policies, the interface's description, a page for people."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from verdictree.conversation import Conversation, validated
from verdictree.errors import InvalidConversation
from verdictree.text.visible import bounded
from verdictree.verdict import Verdict
from verdictree_gateway.front import Caller, Front, known_id
from verdictree_gateway.policies import Policies
from verdictree_gateway.refused import Reason, Refused
from verdictree_gateway.web import bodies, chat_messages, litellm, moderations, openapi, scores
from verdictree_gateway.web.page import routes as page

MAX_BATCH = 32
_PORT = "http"
_TIMEOUT = "x-request-timeout"  # seconds
_QUOTED = 200
Body = TypeVar("Body")
Answer = Callable[[Caller, Request, float], Awaitable[Any]]


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
                Route(openapi.LITELLM, self._endpoint(self._litellm), methods=["POST"]),
                Route("/v1/policies", self._endpoint(self._list), methods=["GET"]),
                Route("/v1/scores", self._endpoint(self._scores), methods=["GET"]),
                Route("/openapi.json", _described, methods=["GET"]),
                *page.routes(),
            ],
            exception_handlers={404: _no_route, 405: _no_route},
        )

    def _endpoint(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            request_id = known_id(request.headers.get(bodies.REQUEST_ID))
            try:
                caller = self._caller(request, request_id)
                content = await answer(caller, request, self._seconds(request))
                return bodies.json(content, 200, {bodies.REQUEST_ID: request_id})
            except Refused as exc:
                return bodies.refusal(exc, request_id)

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
            return msgspec.json.decode(await bodies.content(request), type=kind)
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
        return moderations.answer(
            caller.request_id, await self._judged(caller, moderations.conversations, asked, seconds)
        )

    async def _litellm(self, caller: Caller, request: Request, seconds: float) -> Any:
        asked = await self._read(request, litellm.Request)
        found = await self._judged(caller, litellm.conversations, asked, seconds)
        return litellm.answer(asked, [verdict for verdict, _ in found])

    async def _judged(
        self, caller: Caller, conversations: Callable[[Body], list[Conversation]], asked: Body, seconds: float
    ) -> list[tuple[Verdict, bytes]]:
        """The verdicts on all conversations in a request, side by side."""
        try:
            found = conversations(asked)
        except InvalidConversation as exc:
            raise self._invalid(exc) from exc
        return list(await asyncio.gather(*(self._front.verdict(caller, one, seconds) for one in found)))

    async def _classify(self, caller: Caller, request: Request, seconds: float) -> Any:
        return await self._one(caller, await self._read(request, chat_messages.Classify), seconds)

    async def _batch(self, caller: Caller, request: Request, seconds: float) -> Any:
        asked = (await self._read(request, chat_messages.Batch)).requests
        if not 1 <= len(asked) <= MAX_BATCH:
            raise self._invalid(InvalidConversation(f"expected 1 to {MAX_BATCH} requests, got {len(asked)}"))

        async def outcome(one: chat_messages.Classify) -> Any:
            try:
                return await self._one(caller, one, seconds)
            except Refused as exc:
                return bodies.error(exc, caller.request_id)

        return {"results": await asyncio.gather(*map(outcome, asked))}

    async def _one(self, caller: Caller, asked: chat_messages.Classify, seconds: float) -> Any:
        try:
            messages, left_out = chat_messages.read(asked.messages)
            conversation = validated(
                Conversation(messages, asked.policy, asked.truncate, asked.routing_key, asked.exact)
            )
        except InvalidConversation as exc:
            raise self._invalid(exc) from exc
        _, body = await self._front.verdict(caller, conversation, seconds)
        return {"verdict": msgspec.Raw(body), "left_out": left_out}

    async def _list(self, caller: Caller, request: Request, seconds: float) -> Any:
        listed = self._policies.of(caller.account.tenant)
        return {"release": listed.release, "policies": [openapi.policy(one) for one in listed.policies]}

    async def _scores(self, caller: Caller, request: Request, seconds: float) -> Any:
        return scores.answer(self._policies.of(caller.account.tenant), request.query_params.get("policy"))


async def _described(_request: Request) -> Response:
    return bodies.json(_DOCUMENT, 200, {})


async def _no_route(request: Request, exc: Exception) -> Response:
    refused = Refused(Reason.NOT_FOUND, "expected one of the paths in /openapi.json, got another path or method")
    return bodies.refusal(refused, known_id(request.headers.get(bodies.REQUEST_ID)))


_DOCUMENT = openapi.document()
