"""The client for asyncio: the same calls, awaited."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from functools import cached_property
from typing import Literal, Self, Unpack, overload

import grpc

from verdictree.conversation import Truncate
from verdictree.policy import Policy
from verdictree.verdict import Verdict
from verdictree_client.connection import open_channel
from verdictree_client.conversations import Messages, check_bulk, conversation_of
from verdictree_client.deadline import Deadline, seconds
from verdictree_client.errors import GuardError, from_rpc, unexpected
from verdictree_client.protocol import POLL_INTERVAL, Answer, BaseClient, Call, CallOptions, Health
from verdictree_client.server import Server


class AsyncGuardClient(BaseClient):
    """Asks a Verdictree server for verdicts from one event loop: the one of its first call.

    `deadline`: seconds that a call may take, retries included; finite (InvalidSettings). `tls=None` sends plain text.
    `api_key`: the tenant's, where the server asks for one.
    """

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        # gRPC binds a channel to the loop that runs when it is made: a client made at import time has none yet.
        return open_channel(grpc.aio, self._channel_arguments)

    @cached_property
    def _server(self) -> Server:
        return Server(self._channel, self._metadata)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in flight fail."""
        await self._channel.close()

    async def classify(
        self,
        messages: Messages,
        *,
        policy: str | None = None,
        truncate: Truncate | None = None,
        routing_key: str | None = None,
        exact: bool = False,
        deadline: float | None = None,
    ) -> Verdict:
        """The verdict on the last message; see `GuardClient.classify`."""
        conversation = conversation_of(messages, policy, truncate, routing_key, exact)
        return await self._answered(self._classification(self._server, conversation, deadline))

    async def policies(self, *, deadline: float | None = None) -> tuple[Policy, ...]:
        """The policies by which this caller may ask; see `GuardClient.policies`."""
        return await self._answered(self._listing(self._server, deadline))

    async def _answered(self, call: Call[Answer]) -> Answer:
        while True:
            try:
                answer = await call.send()
            except grpc.RpcError as exc:
                pause = call.pause(exc)
            except Exception as exc:
                raise unexpected(exc) from exc
            else:
                return call.read(answer)
            await asyncio.sleep(pause)

    @overload
    def classify_many(
        self,
        items: Iterable[Messages] | AsyncIterable[Messages],
        *,
        concurrency: int = 8,
        return_errors: Literal[False] = False,
        **options: Unpack[CallOptions],
    ) -> AsyncIterator[Verdict]: ...
    @overload
    def classify_many(
        self,
        items: Iterable[Messages] | AsyncIterable[Messages],
        *,
        concurrency: int = 8,
        return_errors: Literal[True],
        **options: Unpack[CallOptions],
    ) -> AsyncIterator[Verdict | GuardError]: ...
    def classify_many(
        self,
        items: Iterable[Messages] | AsyncIterable[Messages],
        *,
        concurrency: int = 8,
        return_errors: bool = False,
        policy: str | None = None,
        truncate: Truncate | None = None,
        deadline: float | None = None,
    ) -> AsyncIterator[Verdict | GuardError]:
        """The verdicts on many conversations, in their order, lazily; see `GuardClient.classify_many`.

        `items` may be an asynchronous iterable. Stopping early (`contextlib.aclosing` makes it prompt) cancels the
        requests in flight.
        """
        check_bulk(items, concurrency)

        async def outcome(messages: Messages) -> Verdict | GuardError:
            try:
                return await self.classify(messages, policy=policy, truncate=truncate, deadline=deadline)
            except GuardError as exc:
                if return_errors:
                    return exc
                raise

        async def outcomes() -> AsyncIterator[Verdict | GuardError]:
            in_flight: deque[asyncio.Task[Verdict | GuardError]] = deque()
            try:
                async for messages in _asynchronous(items):
                    in_flight.append(asyncio.create_task(outcome(messages)))
                    while in_flight and (len(in_flight) == concurrency or in_flight[0].done()):
                        yield await in_flight.popleft()
                while in_flight:
                    yield await in_flight.popleft()
            finally:
                for task in in_flight:
                    task.cancel()
                await asyncio.gather(*in_flight, return_exceptions=True)

        return outcomes()

    async def health(self, *, deadline: float | None = None) -> Health:
        """Whether the server lives and the guard is ready; a server that is away is an answer, not an error."""
        until = self._until(deadline)
        live = False
        try:
            live = (await self._server.live(until.remaining)).live
            return Health(live, live and (await self._server.ready(until.remaining)).ready)
        except grpc.RpcError as exc:
            return Health(live, False, str(from_rpc(exc, self._url)))

    async def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Wait until the guard takes requests; ServerUnavailable if it does not within `timeout` seconds."""
        until = Deadline(seconds(timeout, "timeout"))
        while not (health := await self.health(deadline=max(until.remaining, POLL_INTERVAL))).ready:
            await asyncio.sleep(self._poll_pause(health, until))


async def _asynchronous(items: Iterable[Messages] | AsyncIterable[Messages]) -> AsyncIterator[Messages]:
    if isinstance(items, AsyncIterable):
        async for messages in items:
            yield messages
    else:
        for messages in items:
            yield messages
