"""Triton's Python-based backend ``onnxruntime``: serves ONNX models where NVIDIA's C++ backend is absent."""

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils  # provided by Triton's model process
from numpy.typing import NDArray

from verdictree_serving.errors import InferenceFailed
from verdictree_serving.onnxruntime_backend import OnnxModel


class TritonPythonModel:
    """One model instance; Triton calls the methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; what this raises becomes Triton's load error."""
        version_directory = Path(args["model_repository"]) / args["model_version"]
        gpu = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        self._model = OnnxModel(json.loads(args["model_config"]), version_directory, gpu)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request of one batch."""
        tensors = [{tensor.name(): tensor.as_numpy() for tensor in request.inputs()} for request in requests]
        results = self._model.run(tensors)
        return [_response(request, result) for request, result in zip(requests, results, strict=True)]

    def finalize(self) -> None:
        """Release the session with its threads and memory."""
        del self._model


def _response(request: Any, result: dict[str, NDArray[Any]] | InferenceFailed) -> Any:
    if isinstance(result, InferenceFailed):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(result)))
    outputs = [pb_utils.Tensor(name, result[name]) for name in request.requested_output_names()]
    return pb_utils.InferenceResponse(outputs)
