"""One call's life: how long it may take, what is sent again, and what its failure means; the same for both clients."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

import grpc

from verdictree import wire
from verdictree.conversation import Conversation, Truncate
from verdictree.policy import Policy
from verdictree.v1 import guard_pb2, messages
from verdictree.verdict import Verdict
from verdictree_client import connection
from verdictree_client.connection import TLS
from verdictree_client.deadline import Deadline, Retries, seconds
from verdictree_client.errors import InvalidSettings, ServerFailure, ServerUnavailable, from_rpc
from verdictree_client.server import Server, Typed

POLL_INTERVAL = 0.1
DEFAULT_RETRIES = Retries()
Answer = TypeVar("Answer")


class CallOptions(TypedDict, total=False):
    """The options of one call, as `classify` and `classify_many` take them."""

    policy: str | None
    truncate: Truncate | None
    deadline: float | None


@dataclass(frozen=True)
class Health:
    """What the server says of itself.

    live: the server answers. ready: the guard is loaded and takes requests. reason: why not, where an error told.
    """

    live: bool
    ready: bool
    reason: str = ""


class Call(Generic[Answer]):
    """What one call sends, how often, and what an answer or a failure of it means."""

    def __init__(self, server: Server, deadline: Deadline, retries: Retries, url: str) -> None:
        self._server, self._deadline, self._retries, self._url = server, deadline, retries, url
        self._num_retries = 0

    def send(self) -> Any:
        """Send it: the answer, or for asyncio what is awaited for it."""
        raise NotImplementedError

    def read(self, answer: Any) -> Answer:
        """What the answer says; ServerFailure where it is none."""
        raise NotImplementedError

    def pause(self, exc: grpc.RpcError) -> float:
        """Seconds to wait before the next attempt; raises the GuardError that `exc` means where there is none."""
        error = from_rpc(exc, self._url)
        pause = max(self._retries.pause(self._num_retries), error.retry_after or 0.0)
        if not self._retries.allow(error, self._num_retries) or pause >= self._deadline.remaining:
            raise error from exc
        self._num_retries += 1
        return pause


class Classification(Call[Verdict]):
    """A call for the verdict on a conversation."""

    def __init__(self, conversation: Conversation, *call: Any) -> None:
        super().__init__(*call)
        self._conversation = conversation
        self._asked = self._server.way

    def send(self) -> Any:
        """Send the conversation as the server understands it, with what is left of the deadline."""
        self._asked = self._server.way
        return self._asked.ask(self._conversation, self._deadline.remaining, self._server.metadata)

    def read(self, answer: Any) -> Verdict:
        """The verdict."""
        return self._asked.verdict(answer)

    def pause(self, exc: grpc.RpcError) -> float:
        """As of every call; none, and no retry spent, where the failure only tells which way to ask."""
        return 0.0 if self._server.learns(exc, self._asked) else super().pause(exc)


class Listing(Call[tuple[Policy, ...]]):
    """A call for the policies."""

    def send(self) -> Any:
        """Ask for them."""
        typed: Typed = self._server.typed
        request = guard_pb2.ListPoliciesRequest()
        return typed.stub.ListPolicies(request, timeout=self._deadline.remaining, metadata=self._server.metadata)

    def read(self, answer: Any) -> tuple[Policy, ...]:
        """The policies, the default first."""
        try:
            return messages.policies(answer)
        except KeyError as exc:
            raise ServerFailure(
                f"expected policies of roles that are known, got role {exc}; update the client"
            ) from exc

    def pause(self, exc: grpc.RpcError) -> float:
        """As of every call; that Triton itself lists no policies is said."""
        if exc.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise ServerFailure(
                f"expected a gateway at {self._url}, got a server that lists no policies, such as Triton itself; "
                "give the gateway's gRPC address"
            ) from exc
        return super().pause(exc)


class BaseClient:
    """A client's settings, checked once, and the calls made from them."""

    def __init__(
        self,
        url: str = wire.URL,
        *,
        deadline: float = wire.DEADLINE,
        tls: TLS | None = None,
        retries: Retries = DEFAULT_RETRIES,
        api_key: str | None = None,
    ) -> None:
        if api_key is not None and not _API_KEY.fullmatch(api_key):
            raise InvalidSettings("expected an API key of visible ASCII characters, got another text; give yours")
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else None
        self._url = url
        self._deadline = seconds(deadline, "deadline")
        self._retries = retries
        self._channel_arguments = connection.channel_arguments(url, tls)

    def _until(self, deadline: float | None) -> Deadline:
        return Deadline(self._deadline if deadline is None else seconds(deadline, "deadline"))

    def _classification(self, server: Server, conversation: Conversation, deadline: float | None) -> Classification:
        return Classification(conversation, server, self._until(deadline), self._retries, self._url)

    def _listing(self, server: Server, deadline: float | None) -> Listing:
        return Listing(server, self._until(deadline), self._retries, self._url)

    def _poll_pause(self, health: Health, until: Deadline) -> float:
        if not until.remaining:
            raise ServerUnavailable(
                f"expected model {wire.MODEL!r} ready at {self._url} in time, got {health}; "
                "check that the server runs there"
            )
        return min(POLL_INTERVAL, until.remaining)


_API_KEY = re.compile("[!-~]+")
