"""Turns a text into its bytes; refuses the text ``refuse me``."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Stands for a composing step that validates requests."""

    def execute(self, requests):
        """Answer each request by itself."""
        return [_answer(pb_utils.get_input_tensor_by_name(request, "text").as_numpy().item()) for request in requests]


def _answer(text):
    if text == b"refuse me":
        return pb_utils.InferenceResponse(error=pb_utils.TritonError("refused", pb_utils.TritonError.INVALID_ARG))
    ids = np.frombuffer(text, np.uint8).astype(np.int64)[None]
    return pb_utils.InferenceResponse([pb_utils.Tensor("ids", ids)])
