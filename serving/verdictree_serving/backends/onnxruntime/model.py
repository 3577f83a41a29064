"""Triton's Python-based backend `onnxruntime`: serves ONNX models where NVIDIA's C++ backend is absent."""

import json
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils  # provided by Triton's model process
from numpy.typing import NDArray

from verdictree_serving.errors import InferenceFailed, InvalidInput, Overloaded
from verdictree_serving.onnxruntime_backend.backend import OnnxModel, Tensors
from verdictree_serving.onnxruntime_backend.lanes import LongLane, Turns
from verdictree_serving.triton_steps.errors import error, send


class TritonPythonModel:
    """One model instance; Triton calls the methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; what this raises becomes Triton's load error."""
        version_directory = Path(args["model_repository"]) / args["model_version"]
        gpu = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        self._model = OnnxModel(json.loads(args["model_config"]), version_directory, gpu)
        runs = self._model.concurrent_runs or 1
        self._threads = ThreadPoolExecutor(runs)
        self._turns = Turns(runs)
        self._lane = LongLane(self._model, self._turns)

    def execute(self, requests: list[Any]) -> None:
        """Answer the requests of a batch; return as soon as one more run could start."""
        asked = [(request, _tensors(request)) for request in requests]
        short = [each for each in asked if not self._is_long(*each)]
        for group in [short] if self._model.concurrent_runs is None and short else [[each] for each in short]:
            self._turns.take()
            self._threads.submit(self._answer, group)
        # Triton hands over its next batch when this returns: until something can run, requests wait there and gather.
        self._turns.take()
        self._turns.give()

    def finalize(self) -> None:
        """Release the session with its threads and memory."""
        self._lane.close()
        self._threads.shutdown()
        del self._model

    def _is_long(self, request: Any, tensors: Tensors) -> bool:
        windows = self._model.windows(tensors)
        if len(windows) > 1:
            self._lane.offer(windows, 1e-6 * request.timeout(), lambda result: _send(request, result))
        return len(windows) > 1

    def _answer(self, asked: list[tuple[Any, Tensors]]) -> None:
        requests, tensors = zip(*asked, strict=True)
        try:
            results = self._model.run(tensors)
            responses = [_response(request, result) for request, result in zip(requests, results, strict=True)]
        except Exception:  # a request without a response would wait for ever
            pb_utils.Logger.log_error(traceback.format_exc())
            responses = [error("the graph failed on this request; the server's log says why") for _ in requests]
        try:
            for request, response in zip(requests, responses, strict=True):
                send(request.get_response_sender(), response)
        finally:
            self._turns.give()


def _tensors(request: Any) -> Tensors:
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def _send(request: Any, result: dict[str, NDArray[Any]] | InferenceFailed) -> None:
    send(request.get_response_sender(), _response(request, result))


def _response(request: Any, result: dict[str, NDArray[Any]] | InferenceFailed) -> Any:
    if isinstance(result, InvalidInput):
        return error(str(result), "INVALID_ARG")
    if isinstance(result, Overloaded):
        return error(str(result), "UNAVAILABLE")
    if isinstance(result, InferenceFailed):
        return error(str(result))
    outputs = [pb_utils.Tensor(name, result[name]) for name in request.requested_output_names()]
    return pb_utils.InferenceResponse(outputs)
