"""Triton step `guard_tokenizer`: request JSON in, token ids out."""

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from verdictree import release
from verdictree.conversation import parse
from verdictree.errors import InvalidConversation
from verdictree.tokenization import ConversationTokenizer


class TritonPythonModel:
    """One instance; Triton calls the methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load this release's tokenizer."""
        directory = Path(args["model_repository"]) / args["model_version"]
        self._tokenize = ConversationTokenizer.load(release.load(directory), directory)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself: a bad one gets its own error and fails no other."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        bodies = pb_utils.get_input_tensor_by_name(request, "request").as_numpy()
        try:
            if bodies.shape != (1, 1):
                raise InvalidConversation(
                    f"expected one conversation, shape [1, 1], got {list(bodies.shape)}; send one request each"
                )
            one = self._tokenize(parse(bodies[0, 0]))
        except InvalidConversation as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
        counts = [one.num_tokens, one.num_truncated]
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("input_ids", one.input_ids[np.newaxis]),
                pb_utils.Tensor("prefix_id", np.array([one.prefix_ids], dtype=np.int32)),
                pb_utils.Tensor("token_counts", np.array([counts], dtype=np.int32)),
            ]
        )
