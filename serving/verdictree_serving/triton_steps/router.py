"""Triton model `guard_router`: request JSON in, the verdict of the release that it belongs to out."""

from __future__ import annotations

import json
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from verdictree import wire
from verdictree.releases.journal import FOLDER
from verdictree_serving.triton_steps.errors import error, send
from verdictree_serving.triton_steps.inner_errors import code_of
from verdictree_serving.triton_steps.shadow_log import ShadowLog
from verdictree_serving.triton_steps.split import Answer, Router, Settings

_MAX_IN_FLIGHT = 256  # threads; the releases' own queues are shorter


class RouterStep:
    """One instance; Triton calls the methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read how requests are split, and open the record."""
        settings = Settings.parse(json.loads(args["model_config"])["parameters"])
        repository = Path(args["model_repository"]).parent
        self._log = ShadowLog(repository / FOLDER / settings.record)
        self._router = Router(settings, _ask, self._log)
        self._threads = ThreadPoolExecutor(_MAX_IN_FLIGHT, thread_name_prefix="router")
        self._free = threading.Semaphore(_MAX_IN_FLIGHT)

    def execute(self, requests: list[Any]) -> None:
        """Take the requests and return at once, so that the releases still see them side by side and batch them."""
        for request in requests:
            sender = request.get_response_sender()
            if self._free.acquire(blocking=False):
                body = pb_utils.get_input_tensor_by_name(request, wire.REQUEST).as_numpy()
                self._threads.submit(self._answer, body, request.timeout(), sender)
            else:
                message = f"Exceeds maximum queue size: {_MAX_IN_FLIGHT} requests are in flight"
                send(sender, error(message, "UNAVAILABLE"))

    def finalize(self) -> None:
        """Answer what was taken, record what waits."""
        self._threads.shutdown()
        self._log.close()

    def _answer(self, body: Any, timeout_us: int, sender: Any) -> None:
        try:
            answer = self._router.answer(body, timeout_us)
        except Exception:  # a request that is not answered would hang its caller
            pb_utils.Logger.log_error(traceback.format_exc())
            answer = Answer(error=pb_utils.TritonError("the request could not be routed; the server's log says why"))
        finally:
            self._free.release()
        _send(sender, answer)


def _send(sender: Any, answer: Answer) -> None:
    if answer.error is None:
        tensor = pb_utils.Tensor(wire.VERDICT, np.array([[answer.verdict]], dtype=np.object_))
        send(sender, pb_utils.InferenceResponse([tensor]))
    else:
        send(sender, pb_utils.InferenceResponse(error=answer.error))


def _ask(ensemble: str, body: Any, timeout_us: int) -> Answer:
    response = pb_utils.InferenceRequest(
        model_name=ensemble,
        requested_output_names=[wire.VERDICT],
        inputs=[pb_utils.Tensor(wire.REQUEST, body)],
        timeout=timeout_us,
    ).exec()
    if response.has_error():
        message = response.error().message()
        return Answer(error=pb_utils.TritonError(message, getattr(pb_utils.TritonError, code_of(message))))
    return Answer(pb_utils.get_output_tensor_by_name(response, wire.VERDICT).as_numpy().item())
