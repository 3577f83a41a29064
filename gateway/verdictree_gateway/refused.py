"""Why a caller gets no verdict: one error, which every port says in its own protocol's words."""

from __future__ import annotations

from enum import Enum

from verdictree.errors import VerdictreeError


class Reason(Enum):
    """The kinds of refusal: gRPC's status and HTTP's, and what OpenAI's errors call it."""

    INVALID = ("INVALID_ARGUMENT", 400, "invalid_request_error")
    UNAUTHENTICATED = ("UNAUTHENTICATED", 401, "authentication_error")
    FORBIDDEN = ("PERMISSION_DENIED", 403, "permission_error")
    NOT_FOUND = ("NOT_FOUND", 404, "invalid_request_error")
    TOO_LARGE = ("INVALID_ARGUMENT", 413, "invalid_request_error")
    MEDIA_TYPE = ("INVALID_ARGUMENT", 415, "invalid_request_error")
    TOO_MANY = ("RESOURCE_EXHAUSTED", 429, "rate_limit_error")
    FAILED = ("INTERNAL", 500, "server_error")
    OVERLOADED = ("UNAVAILABLE", 503, "overloaded_error")
    UNAVAILABLE = ("UNAVAILABLE", 503, "server_error")
    TOO_LATE = ("DEADLINE_EXCEEDED", 504, "server_error")

    @property
    def grpc(self) -> str:
        """The name of gRPC's status."""
        return str(self.value[0])

    @property
    def http(self) -> int:
        """HTTP's status."""
        return int(self.value[1])

    @property
    def kind(self) -> str:
        """The `type` of an error of OpenAI's."""
        return str(self.value[2])


class Refused(VerdictreeError):
    """No verdict for this request; `retry_after` seconds later another try may do, None: it cannot help."""

    def __init__(self, reason: Reason, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason, self.retry_after = reason, retry_after
