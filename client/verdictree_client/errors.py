"""The errors of the client, and the one place where Triton's and gRPC's errors become them.

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

from tritonclient.utils import InferenceServerException

from verdictree import wire
from verdictree.errors import VerdictreeError


class GuardError(VerdictreeError):
    """Any reason why there is no verdict."""


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


_BY_STATUS: dict[str, type[GuardError]] = {
    "StatusCode.INVALID_ARGUMENT": InvalidRequest,
    "StatusCode.UNAVAILABLE": ServerUnavailable,
    "StatusCode.NOT_FOUND": ServerUnavailable,  # Triton without the model: not loaded yet, or not a guard's server
    "StatusCode.CANCELLED": ServerUnavailable,  # by a server that stops; who cancels by themselves do not come here
    "StatusCode.UNAUTHENTICATED": NotAllowed,
    "StatusCode.PERMISSION_DENIED": NotAllowed,
    "StatusCode.DEADLINE_EXCEEDED": DeadlineExceeded,
    "StatusCode.RESOURCE_EXHAUSTED": Overloaded,
}


def from_triton(exc: InferenceServerException, url: str = "") -> GuardError:
    """The error that a gRPC status means; ServerFailure for every status that is not named above."""
    status, message = exc.status(), exc.message() or "no message"
    kind = _BY_STATUS.get(status, ServerFailure)
    if kind is ServerFailure and wire.DEAD_PROCESS in message.lower():
        kind = ServerUnavailable
    if kind is ServerUnavailable and any(words in message.lower() for words in wire.QUEUE_FULL):
        kind = Overloaded
    if kind is ServerUnavailable:
        place = f" at {url}" if url else ""
        return kind(
            f"expected a guard{place}, got no answer from one: {message} ({status}); start it with "
            "`verdictree serve`, or give its gRPC address"
        )
    return kind(f"{message} ({status})")


def unexpected(exc: Exception) -> ServerFailure:
    """The error that any other exception of the libraries below means, a closed client's among them."""
    return ServerFailure(f"expected an answer, got {type(exc).__name__}: {exc}; is the client closed?")
