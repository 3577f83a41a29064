"""Triton's Python-based backend `onnxruntime`: serves ONNX models where NVIDIA's C++ backend is absent."""

import json
import time
import traceback
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import triton_python_backend_utils as pb_utils  # provided by Triton's model process
from numpy.typing import NDArray

from verdictree_serving.errors import InferenceFailed, InvalidInput, Overloaded
from verdictree_serving.gate import Gate
from verdictree_serving.onnxruntime_backend.backend import OnnxModel, Tensors
from verdictree_serving.onnxruntime_backend.lanes import LongLane, Turns
from verdictree_serving.triton_metrics import StepMetrics
from verdictree_serving.triton_steps.errors import error, send
from verdictree_serving.triton_steps.inner_errors import Code
from verdictree_serving.waiting_line import Limits, WaitingLine

Asked = tuple[Any, Tensors, float]  # a request, its tensors, and when it came


class TritonPythonModel:
    """One model instance; Triton calls the methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; what this raises becomes Triton's load error."""
        config = json.loads(args["model_config"])
        version_directory = Path(args["model_repository"]) / args["model_version"]
        gpu = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        self._model = OnnxModel(config, version_directory, gpu)
        limits = Limits.of(config)
        self._metrics = StepMetrics(args["model_version"], "graph")
        self._line = WaitingLine[Asked](limits, self._refuse, Gate.before_graph(args["model_version"]))
        runs = self._model.concurrent_runs or 1
        self._turns = Turns(runs)
        self._lane = LongLane(self._model, self._turns, limits.seconds)
        self._threads = [Thread(target=self._work, name=f"run {number}") for number in range(runs)]
        for thread in self._threads:
            thread.start()

    def execute(self, requests: list[Any]) -> None:
        """Let each request wait for its turn, whatever runs: Triton holds none back."""
        for request in requests:
            tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            seconds = 1e-6 * request.timeout()
            windows = self._model.windows(tensors)
            if len(windows) > 1:
                self._lane.offer(windows, seconds, partial(self._send, request))
            else:
                self._line.join((request, tensors, time.perf_counter()), seconds)
        self._metrics.hand_on()

    def finalize(self) -> None:
        """Answer what was taken, and release the session with its threads and memory."""
        self._lane.close()
        self._line.close()
        for thread in self._threads:
            thread.join()
        self._metrics.close()
        del self._model

    def _work(self) -> None:
        while self._line.wait():
            self._turns.take()
            try:
                self._answer(self._line.take(self._model.requests_at_once))
            finally:
                self._turns.give()

    def _answer(self, asked: list[Asked]) -> None:
        for *_, since in asked:
            self._metrics.waited(since)
        start = time.perf_counter()
        try:
            results = self._model.run([tensors for _, tensors, _ in asked])
            responses = [self._response(request, result) for (request, *_), result in zip(asked, results, strict=True)]
        except Exception:  # a request without a response would wait for ever
            pb_utils.Logger.log_error(traceback.format_exc())
            responses = [error("the graph failed on this request; the server's log says why") for _ in asked]
            self._metrics.refused("failed")
        for (request, *_), response in zip(asked, responses, strict=True):
            self._metrics.computed(time.perf_counter() - start)
            send(request.get_response_sender(), response)

    def _refuse(self, asked: Asked, why: str) -> None:
        self._send(asked[0], Overloaded(why))

    def _send(self, request: Any, result: dict[str, NDArray[Any]] | InferenceFailed) -> None:
        send(request.get_response_sender(), self._response(request, result))

    def _response(self, request: Any, result: dict[str, NDArray[Any]] | InferenceFailed) -> Any:
        if not isinstance(result, InferenceFailed):
            outputs = [pb_utils.Tensor(name, result[name]) for name in request.requested_output_names()]
            return pb_utils.InferenceResponse(outputs)
        for kind, reason, code in _FAILURES:
            if isinstance(result, kind):
                self._metrics.refused(reason)
                return error(str(result), code)
        raise TypeError(f"expected one of {_FAILURES}, got {type(result)}")


_FAILURES: tuple[tuple[type[InferenceFailed], str, Code], ...] = (
    (InvalidInput, "invalid", "INVALID_ARG"),
    (Overloaded, "overloaded", "UNAVAILABLE"),
    (InferenceFailed, "failed", "INTERNAL"),
)
