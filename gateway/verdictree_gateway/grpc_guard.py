"""The service `verdictree.v1.Guard`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from verdictree.errors import InvalidConversation
from verdictree.v1 import guard_pb2 as pb
from verdictree.v1 import guard_pb2_grpc, messages
from verdictree_gateway import grpc_errors
from verdictree_gateway.front import Caller, Front, known_id
from verdictree_gateway.grpc_errors import REQUEST_ID
from verdictree_gateway.policies import Policies, ServedPolicy
from verdictree_gateway.refused import Reason, Refused

_AT_ONCE = 32  # of one stream


async def caller_of(front: Front, context: Any, port: str) -> Caller:
    """Who calls. Ends the call where nobody holds the key."""
    said = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    request_id = known_id(said.get(REQUEST_ID))
    try:
        caller = front.caller(port, said.get("authorization"), request_id, said.get("traceparent"))
    except Refused as exc:
        front.turned_away(port, exc)
        await grpc_errors.abort(context, exc, request_id)
        raise
    await context.send_initial_metadata(((REQUEST_ID, caller.request_id),))
    return caller


def seconds_left(front: Front, context: Any) -> float:
    """Until the caller's deadline; the gateway's own where they have none."""
    left = context.time_remaining()
    return front.deadline if left is None else float(left)


class GuardService(guard_pb2_grpc.GuardServicer):  # type: ignore[misc]
    """Answers typed calls."""

    def __init__(self, front: Front, policies: Policies) -> None:
        self._front, self._policies = front, policies

    async def Classify(self, request: pb.ClassifyRequest, context: Any) -> pb.ClassifyResponse:
        """The verdict on one conversation."""
        caller = await caller_of(self._front, context, "grpc")
        try:
            return pb.ClassifyResponse(verdict=await self._verdict(caller, request, seconds_left(self._front, context)))
        except Refused as exc:
            await grpc_errors.abort(context, exc, caller.request_id)
            raise

    async def ClassifyMany(
        self, requests: AsyncIterator[pb.ClassifyManyRequest], context: Any
    ) -> AsyncIterator[pb.ClassifyManyResponse]:
        """The verdicts on a stream, each as soon as it is there. A stream's deadline is that of all of it."""
        caller = await caller_of(self._front, context, "grpc")
        answers: asyncio.Queue[pb.ClassifyManyResponse | None] = asyncio.Queue(_AT_ONCE)
        reading = asyncio.create_task(self._read(caller, requests, answers, context))
        try:
            while (answer := await answers.get()) is not None:
                yield answer
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Any) -> pb.ListPoliciesResponse:
        """What may be asked about."""
        caller = await caller_of(self._front, context, "grpc")
        try:
            listed = self._policies.of(caller.account.tenant)
        except Refused as exc:
            await grpc_errors.abort(context, exc, caller.request_id)
            raise
        return pb.ListPoliciesResponse(
            release=listed.release,
            policies=[_listed(one) for one in listed.policies],
        )

    async def _verdict(self, caller: Caller, request: pb.ClassifyRequest, seconds: float) -> pb.Verdict:
        try:
            conversation = messages.conversation(request)
        except InvalidConversation as exc:
            refused = Refused(Reason.INVALID, str(exc))
            self._front.turned_away(caller.port, refused)
            raise refused from exc
        verdict, _ = await self._front.verdict(caller, conversation, seconds)
        return messages.answer(verdict)

    async def _read(
        self,
        caller: Caller,
        requests: AsyncIterator[pb.ClassifyManyRequest],
        answers: asyncio.Queue[pb.ClassifyManyResponse | None],
        context: Any,
    ) -> None:
        """Read on as long as fewer than `_AT_ONCE` wait; at the end, say so."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(asked: pb.ClassifyManyRequest) -> None:
            answer = pb.ClassifyManyResponse(id=asked.id)
            try:
                seconds = min(self._front.deadline, seconds_left(self._front, context))
                answer.verdict.CopyFrom(await self._verdict(caller, asked.request, seconds))
            except Refused as exc:
                answer.error.CopyFrom(grpc_errors.status(exc, caller.request_id))
            except Exception:
                fault = Refused(Reason.FAILED, "the gateway failed on this request; its log says why")
                answer.error.CopyFrom(grpc_errors.status(fault, caller.request_id))
                raise
            finally:
                await answers.put(answer)
                room.release()

        async with asyncio.TaskGroup() as tasks:
            async for asked in requests:
                await room.acquire()
                tasks.create_task(one(asked))
        await answers.put(None)


def _listed(served: ServedPolicy) -> pb.Policy:
    policy, whole = served.policy, served.whole
    return pb.Policy(
        name=policy.name,
        version=policy.version,
        roles=messages.roles(policy.roles),
        review=whole.review,
        threshold=whole.threshold,
        categories=[
            pb.Category(
                code=one.code,
                name=one.shown,
                description=one.description,
                roles=messages.roles(one.roles),
                review=limits.review,
                threshold=limits.threshold,
            )
            for one, limits in zip(policy.categories, served.categories, strict=True)
        ],
    )
