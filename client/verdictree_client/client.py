"""The client for threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, Self, Unpack, overload

import grpc

from verdictree import wire
from verdictree.conversation import Truncate
from verdictree.policy import Policy
from verdictree.verdict import Verdict
from verdictree_client.connection import TLS, open_channel
from verdictree_client.conversations import Messages, check_bulk, conversation_of
from verdictree_client.deadline import Deadline, Retries, seconds
from verdictree_client.errors import GuardError, from_rpc, unexpected
from verdictree_client.protocol import (
    DEFAULT_RETRIES,
    POLL_INTERVAL,
    Answer,
    BaseClient,
    Call,
    CallOptions,
    Health,
)
from verdictree_client.server import Server


class GuardClient(BaseClient):
    """Asks a Verdictree server for verdicts; one client serves all threads of a process.

    `deadline`: seconds that a call may take, retries included; finite (InvalidSettings). `tls=None` sends plain text.
    `api_key`: the tenant's, where the server asks for one.
    """

    def __init__(
        self,
        url: str = wire.URL,
        *,
        deadline: float = wire.DEADLINE,
        tls: TLS | None = None,
        retries: Retries = DEFAULT_RETRIES,
        api_key: str | None = None,
    ) -> None:
        super().__init__(url, deadline=deadline, tls=tls, retries=retries, api_key=api_key)
        self._channel = open_channel(grpc, self._channel_arguments)
        self._server = Server(self._channel, self._metadata)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls in flight fail."""
        self._channel.close()

    def classify(
        self,
        messages: Messages,
        *,
        policy: str | None = None,
        truncate: Truncate | None = None,
        routing_key: str | None = None,
        exact: bool = False,
        deadline: float | None = None,
    ) -> Verdict:
        """The verdict on the last message: a str is one user message, a sequence the whole conversation.

        `policy`, `truncate`, `routing_key` and `exact` as in `Conversation`; `deadline` in seconds in place of the
        client's. Raises GuardError.
        """
        conversation = conversation_of(messages, policy, truncate, routing_key, exact)
        return self._answered(self._classification(self._server, conversation, deadline))

    def policies(self, *, deadline: float | None = None) -> tuple[Policy, ...]:
        """The policies by which this caller may ask, the default first, with the thresholds that are in effect.

        A gateway tells them, where it knows its model repository. Raises GuardError.
        """
        return self._answered(self._listing(self._server, deadline))

    def _answered(self, call: Call[Answer]) -> Answer:
        while True:
            try:
                answer = call.send()
            except grpc.RpcError as exc:
                pause = call.pause(exc)
            except Exception as exc:
                raise unexpected(exc) from exc
            else:
                return call.read(answer)
            time.sleep(pause)

    @overload
    def classify_many(
        self,
        items: Iterable[Messages],
        *,
        concurrency: int = 8,
        return_errors: Literal[False] = False,
        **options: Unpack[CallOptions],
    ) -> Iterator[Verdict]: ...
    @overload
    def classify_many(
        self,
        items: Iterable[Messages],
        *,
        concurrency: int = 8,
        return_errors: Literal[True],
        **options: Unpack[CallOptions],
    ) -> Iterator[Verdict | GuardError]: ...
    def classify_many(
        self,
        items: Iterable[Messages],
        *,
        concurrency: int = 8,
        return_errors: bool = False,
        policy: str | None = None,
        truncate: Truncate | None = None,
        deadline: float | None = None,
    ) -> Iterator[Verdict | GuardError]:
        """The verdicts on many conversations, in their order, lazily: `items` may be endless.

        At most `concurrency` items are read ahead of the verdicts, and as many requests are in flight; a verdict that
        is there waits while `items` is slow to yield the next. An item that fails raises its GuardError in its place,
        which ends the iteration; with `return_errors=True` the error is yielded there instead and nothing else is
        lost. `deadline` holds for each item. Stopping early sends nothing more; requests in flight then end by their
        deadline, or with `close`.
        """
        check_bulk(items, concurrency)

        def outcome(messages: Messages) -> Verdict | GuardError:
            try:
                return self.classify(messages, policy=policy, truncate=truncate, deadline=deadline)
            except GuardError as exc:
                if return_errors:
                    return exc
                raise

        def outcomes() -> Iterator[Verdict | GuardError]:
            in_flight: deque[Future[Verdict | GuardError]] = deque()
            pool = ThreadPoolExecutor(concurrency, thread_name_prefix="verdictree-client")
            try:
                for messages in items:
                    in_flight.append(pool.submit(outcome, messages))
                    while in_flight and (len(in_flight) == concurrency or in_flight[0].done()):
                        yield in_flight.popleft().result()
                while in_flight:
                    yield in_flight.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

        return outcomes()

    def health(self, *, deadline: float | None = None) -> Health:
        """Whether the server lives and the guard is ready; a server that is away is an answer, not an error."""
        until = self._until(deadline)
        live = False
        try:
            live = self._server.live(until.remaining).live
            return Health(live, live and self._server.ready(until.remaining).ready)
        except grpc.RpcError as exc:
            return Health(live, False, str(from_rpc(exc, self._url)))

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Wait until the guard takes requests; ServerUnavailable if it does not within `timeout` seconds."""
        until = Deadline(seconds(timeout, "timeout"))
        while not (health := self.health(deadline=max(until.remaining, POLL_INTERVAL))).ready:
            time.sleep(self._poll_pause(health, until))
