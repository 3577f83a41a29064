"""The one way from a request to a verdict, whichever port it came by: who asks, may they, is there room, ask."""

from __future__ import annotations

import re
import time
import uuid
from pathlib import Path

import msgspec

from verdictree import wire
from verdictree.conversation import Conversation
from verdictree.errors import InvalidConversation
from verdictree.verdict import Verdict
from verdictree_gateway.observing.caller import Caller as Caller
from verdictree_gateway.observing.exits import Exits
from verdictree_gateway.observing.tracing import RequestSpan, Tracing
from verdictree_gateway.observing.watch import Watch
from verdictree_gateway.refused import Reason, Refused
from verdictree_gateway.settings import Settings
from verdictree_gateway.tenants import Tenants
from verdictree_gateway.triton import Triton

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_BEARER = "bearer "
_RETRY_SECONDS = 0.2


class Front:
    """Lets requests in, one by one, as long as the gateway takes any."""

    def __init__(self, settings: Settings, triton: Triton, watch: Watch, exits: Exits, tracing: Tracing) -> None:
        self._settings, self._triton, self._watch, self._tracing = settings, triton, watch, tracing
        self._exits = exits
        self._tenants = Tenants(Path(settings.tenants) if settings.tenants else None)
        self._in_flight = 0
        self.is_draining = False

    def caller(self, port: str, authorization: str | None, request_id: str | None, traceparent: str | None) -> Caller:
        """Who sent this; Refused where the key is nobody's."""
        said = authorization or ""
        key = said[len(_BEARER) :] if said.lower().startswith(_BEARER) else None
        known = traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None
        return Caller(self._tenants.account(key), known_id(request_id), port, known)

    def turned_away(self, port: str, refused: Refused) -> None:
        """Count a refusal that came before a conversation was known."""
        self._watch.turned_away(port, refused)

    @property
    def in_flight(self) -> int:
        """How many requests wait for their verdicts."""
        return self._in_flight

    async def verdict(self, caller: Caller, conversation: Conversation, seconds: float) -> tuple[Verdict, bytes]:
        """The verdict on a conversation and its JSON, within `seconds`; Refused where there is none."""
        begin, seconds = time.perf_counter(), min(seconds, self._settings.deadline)
        with self._tracing.request(caller) as span:
            try:
                verdict, body = await self._asked(caller, conversation, seconds, span)
            except Refused as exc:
                span.refused(exc)
                self._watch.refused(caller, exc, time.perf_counter() - begin)
                raise
            span.answered(verdict)
        self._watch.answered(caller, conversation, verdict, time.perf_counter() - begin)
        self._exits.answered(conversation, verdict)
        return verdict, body

    async def _asked(
        self, caller: Caller, conversation: Conversation, seconds: float, span: RequestSpan
    ) -> tuple[Verdict, bytes]:
        account = caller.account
        self._check_open()
        conversation = msgspec.structs.replace(conversation, policy=account.policy(conversation.policy))
        account.take()
        if self._in_flight >= self._settings.max_in_flight:
            raise Refused(
                Reason.OVERLOADED,
                f"Exceeds maximum queue size: {self._settings.max_in_flight} requests are in flight",
                _RETRY_SECONDS,
            )
        self._in_flight += 1
        account.in_flight += 1
        try:
            with span.triton() as traceparent:
                metadata = [("traceparent", traceparent)] if traceparent else None
                begin = time.perf_counter()
                answer = await self._triton.ask(self._exits.asked(conversation), seconds, metadata)
                self._watch.behind(time.perf_counter() - begin)
                return answer
        except InvalidConversation as exc:
            raise Refused(Reason.INVALID, str(exc)) from exc
        finally:
            self._in_flight -= 1
            account.in_flight -= 1

    def _check_open(self) -> None:
        if self.is_draining:
            raise Refused(Reason.UNAVAILABLE, f"{wire.NOT_TAKING}: the server stops", _RETRY_SECONDS)

    @property
    def deadline(self) -> float:
        """Seconds that a request may take whose caller says nothing."""
        return self._settings.deadline


def known_id(given: str | None) -> str:
    """A request's id: the caller's, where it is short and visible, or a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
