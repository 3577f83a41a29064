"""Errors as a step answers them, with their gRPC status; and how an answer is sent."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from verdictree_serving.triton_steps.inner_errors import Code


def error(message: str, code: Code = "INTERNAL") -> Any:
    """A response that is an error of this status. The message goes to a stranger: no path, no traceback."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, getattr(pb_utils.TritonError, code)))


def send(sender: Any, response: Any) -> None:
    """Send the one response of a request."""
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
