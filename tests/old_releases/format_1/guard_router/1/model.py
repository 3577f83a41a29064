"""Triton model `guard_router`: request JSON in, the verdict of the release that it belongs to out."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from verdictree.journal import FOLDER
from verdictree_serving.bls_errors import code_of
from verdictree_serving.router import Answer, Router, Settings
from verdictree_serving.shadow_log import ShadowLog

_MAX_IN_FLIGHT = 256  # threads; further requests wait in their queue
_DONE = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """One instance; Triton calls the methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read how requests are split, and open the record."""
        settings = Settings.parse(json.loads(args["model_config"])["parameters"])
        repository = Path(args["model_repository"]).parent
        self._log = ShadowLog(repository / FOLDER / settings.record)
        self._router = Router(settings, _ask, self._log)
        self._threads = ThreadPoolExecutor(_MAX_IN_FLIGHT, thread_name_prefix="router")

    def execute(self, requests: list[Any]) -> None:
        """Take the requests and return at once, so that the releases still see them side by side and batch them."""
        for request in requests:
            body = pb_utils.get_input_tensor_by_name(request, "request").as_numpy()
            self._threads.submit(self._answer, body, request.get_response_sender())

    def finalize(self) -> None:
        """Answer what was taken, record what waits."""
        self._threads.shutdown()
        self._log.close()

    def _answer(self, body: Any, sender: Any) -> None:
        try:
            answer = self._router.answer(body)
        except Exception as error:  # a request that is not answered would hang its caller
            answer = Answer(error=pb_utils.TritonError(f"{type(error).__name__}: {error}"))
        if answer.error is None:
            tensor = pb_utils.Tensor("verdict", np.array([[answer.verdict]], dtype=np.object_))
            sender.send(pb_utils.InferenceResponse([tensor]), flags=_DONE)
        else:
            sender.send(pb_utils.InferenceResponse(error=answer.error), flags=_DONE)


def _ask(ensemble: str, body: Any) -> Answer:
    inputs = [pb_utils.Tensor("request", body)]
    response = pb_utils.InferenceRequest(model_name=ensemble, requested_output_names=["verdict"], inputs=inputs).exec()
    if response.has_error():
        message = response.error().message()
        return Answer(error=pb_utils.TritonError(message, getattr(pb_utils.TritonError, code_of(message))))
    return Answer(pb_utils.get_output_tensor_by_name(response, "verdict").as_numpy().item())
