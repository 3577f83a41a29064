"""What comes in and goes out over HTTP: bodies of bounded size, within bounded time, and refusals in OpenAI's shape."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from verdictree.conversation import MAX_BYTES
from verdictree_gateway.refused import Reason, Refused

REQUEST_ID = "x-request-id"
_BODY_SECONDS = 10.0
_MOST_BYTES_READ = 16 * MAX_BYTES  # of a body that is too large: most clients read an answer only once all is sent


async def content(request: Request) -> bytes:
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
    headers = {REQUEST_ID: request_id}
    if refused.retry_after is not None:
        headers["retry-after"] = str(max(1, round(refused.retry_after + 0.4)))
        headers["retry-after-ms"] = str(round(1000 * refused.retry_after))
    if refused.reason in (Reason.TOO_LARGE, Reason.TOO_LATE):
        headers["connection"] = "close"  # what is left of the body is not read
    return json(error(refused, request_id), refused.reason.http, headers)


def error(refused: Refused, request_id: str) -> dict[str, Any]:
    """A refusal in the shape of OpenAI's errors."""
    said = {"message": str(refused), "type": refused.reason.kind, "param": None, "code": refused.reason.name.lower()}
    return {"error": {**said, "request_id": request_id}}


def json(content: Any, status: int, headers: dict[str, str]) -> Response:
    """An answer that no browser takes for a page."""
    return Response(
        msgspec.json.encode(content), status, {**headers, "x-content-type-options": "nosniff"}, "application/json"
    )
