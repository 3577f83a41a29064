"""A refusal in gRPC's words: status, message, and details that a program can read (google.rpc)."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from verdictree_gateway.refused import Refused

REQUEST_ID = "x-request-id"
_DETAILS = "grpc-status-details-bin"
_DOMAIN = "verdictree"


def status(refused: Refused, request_id: str) -> status_pb2.Status:
    """The refusal as google.rpc.Status, with ErrorInfo, RequestInfo and, where another try may do, RetryInfo."""
    code = grpc.StatusCode[refused.reason.grpc]
    details = [
        error_details_pb2.ErrorInfo(reason=refused.reason.name, domain=_DOMAIN),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if refused.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(1e9 * refused.retry_after))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    found = status_pb2.Status(code=code.value[0], message=str(refused))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        found.details.append(packed)
    return found


async def abort(context: Any, refused: Refused, request_id: str) -> None:
    """End the call with this refusal."""
    found = status(refused, request_id)
    trailing = ((REQUEST_ID, request_id), (_DETAILS, found.SerializeToString()))
    await context.abort(grpc.StatusCode[refused.reason.grpc], str(refused), trailing)
