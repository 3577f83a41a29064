"""Triton step `guard_marginals`: logits at the nodes of the verdict tree in, verdict JSON out."""

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from verdictree import calibration, release
from verdictree.scorer import Scorer

_INPUTS = ("label_logits", "log_normalizer", "top_logit", "expansions", "prefix_id", "token_counts")


class TritonPythonModel:
    """One instance; Triton calls the methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile this release's marginals and read its calibration, if it has one."""
        directory = Path(args["model_repository"]) / args["model_version"]
        manifest = release.load(directory)
        self._score = Scorer(manifest, calibration.load(directory, manifest))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Score the whole batch at once; each request holds one conversation."""
        batch = [
            np.concatenate([pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests])
            for name in _INPUTS
        ]
        *outputs, prefix_ids, token_counts = batch
        verdicts = self._score(*outputs, prefix_ids=prefix_ids.tolist(), token_counts=token_counts.tolist())
        return [pb_utils.InferenceResponse([_tensor(verdict.to_json())]) for verdict in verdicts]


def _tensor(body: bytes) -> Any:
    return pb_utils.Tensor("verdict", np.array([[body]], dtype=np.object_))
