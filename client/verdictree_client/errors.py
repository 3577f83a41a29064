"""The errors of the client, and the one place where gRPC's errors become them.

GuardError
├── InvalidSettings     the client is set up in a way that cannot work: address, TLS files, deadline; a ValueError too
├── InvalidRequest      the request cannot be classified as it stands; sending it again cannot help
├── NotAllowed          the key, or its lack, does not let this caller ask, or not by this policy
├── ServerUnavailable   nobody answered, or the guard is not loaded; safe to retry
├── DeadlineExceeded    no verdict within the deadline
├── Overloaded          the server's queue is full or the request waited in it too long; back off
└── ServerFailure       the server failed, or its answer is no verdict

None of them says anything about the conversation: a caller that lets content pass on a GuardError decides to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from verdictree import wire
from verdictree.errors import VerdictreeError


class GuardError(VerdictreeError):
    """Any reason why there is no verdict.

    `request_id` is what a gateway's log knows the request by; `retry_after`, in seconds, is how long it asks to be left
    alone. Each is None where the server did not say.
    """

    request_id: str | None = None
    retry_after: float | None = None


class InvalidSettings(GuardError, ValueError):
    """The client is set up in a way that cannot work."""


class InvalidRequest(GuardError):
    """The request cannot be classified as it stands."""


class NotAllowed(GuardError):
    """The key, or its lack, does not let this caller ask; or not by this policy."""


class ServerUnavailable(GuardError):
    """The server is away, or the guard is not ready to answer."""


class DeadlineExceeded(GuardError):
    """There was no verdict within the deadline."""


class Overloaded(GuardError):
    """The server turned the request away because its queue is full or slow."""


class ServerFailure(GuardError):
    """The server failed, or its answer is no verdict."""


_BY_STATUS: dict[grpc.StatusCode, type[GuardError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailable,
    grpc.StatusCode.NOT_FOUND: ServerUnavailable,  # Triton without the model: not loaded yet, or not a guard's server
    grpc.StatusCode.CANCELLED: ServerUnavailable,  # by a server that stops; who cancels by themselves do not come here
    grpc.StatusCode.UNAUTHENTICATED: NotAllowed,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowed,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
}
# A gateway's own reasons (google.rpc.ErrorInfo), where a status alone says less.
_BY_REASON: dict[str, type[GuardError]] = {"OVERLOADED": Overloaded, "NOT_FOUND": InvalidRequest}
_DOMAIN = "verdictree"
_DETAILS = "grpc-status-details-bin"


def from_rpc(exc: grpc.RpcError, url: str = "") -> GuardError:
    """The error that a failed call means, with what a gateway's google.rpc.Status says of it."""
    reason, request_id, retry_after = None, None, None
    for detail in _details(exc):
        if isinstance(detail, error_details_pb2.ErrorInfo) and detail.domain == _DOMAIN:
            reason = detail.reason
        elif isinstance(detail, error_details_pb2.RequestInfo):
            request_id = detail.request_id or None
        elif isinstance(detail, error_details_pb2.RetryInfo):
            retry_after = max(0.0, detail.retry_delay.seconds + 1e-9 * detail.retry_delay.nanos)
    error = from_status(exc.code(), exc.details(), url, reason)
    error.request_id, error.retry_after = request_id, retry_after
    return error


def from_status(
    code: grpc.StatusCode | None, message: str | None, url: str = "", reason: str | None = None
) -> GuardError:
    """The error that a gRPC status means; ServerFailure for every status that is not named above."""
    message = message or "no message"
    kind = _BY_REASON.get(reason or "") or (_BY_STATUS.get(code, ServerFailure) if code else ServerFailure)
    if kind is ServerFailure and wire.DEAD_PROCESS in message.lower():
        kind = ServerUnavailable
    if kind is ServerUnavailable and any(words in message.lower() for words in wire.QUEUE_FULL):
        kind = Overloaded
    if kind is ServerUnavailable:
        place = f" at {url}" if url else ""
        return kind(
            f"expected a guard{place}, got no answer from one: {message} ({code}); start it with "
            "`verdictree serve`, or give its gRPC address"
        )
    return kind(f"{message} ({code})")


def unexpected(exc: Exception) -> ServerFailure:
    """The error that any other exception of the libraries below means, a closed client's among them."""
    return ServerFailure(f"expected an answer, got {type(exc).__name__}: {exc}; is the client closed?")


def _details(exc: grpc.RpcError) -> Iterator[Any]:
    """The details of a google.rpc.Status beside a status; none where what stands there is something else."""
    for key, value in exc.trailing_metadata() or ():
        if key != _DETAILS:
            continue
        try:
            for packed in status_pb2.Status.FromString(value).details:
                for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RequestInfo, error_details_pb2.RetryInfo):
                    if packed.Is(kind.DESCRIPTOR):
                        yield kind.FromString(packed.value)
        except (DecodeError, TypeError):  # a proxy's own words
            return
