"""Triton step `guard_marginals`: logits at the nodes of the verdict tree in, verdict JSON out."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from verdictree import wire
from verdictree.errors import NoVerdict
from verdictree.releases import calibration
from verdictree.releases.release import Release
from verdictree.runtime.scorer import Scorer
from verdictree_serving.triton_metrics import StepMetrics
from verdictree_serving.triton_steps.errors import error

_OUTPUTS = ("label_logits", "log_normalizer", "top_logit", "expansions")
_INPUTS = (*_OUTPUTS, "prefix_id", "token_counts")


class MarginalsStep:
    """One instance; Triton calls the methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile this release's marginals and read its calibration, if it has one."""
        directory = Path(args["model_repository"]) / args["model_version"]
        manifest = Release.load(directory)
        self._score = Scorer(manifest, calibration.load(directory, manifest))
        self._metrics = StepMetrics(args["model_version"], "marginals")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request, of one conversation, by itself: one without a verdict gets its own error."""
        answers = [self._answer(request) for request in requests]
        self._metrics.hand_on()
        return answers

    def finalize(self) -> None:
        """Take this step's metrics with it."""
        self._metrics.close()

    def _answer(self, request: Any) -> Any:
        start = time.perf_counter()
        try:
            tensors = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in _INPUTS}
            fault = self._score.fault(tensors)
            if fault is not None:
                self._metrics.refused("invalid")
                return error(fault, "INVALID_ARG")
            (prefix_ids,), (token_counts,) = tensors["prefix_id"].tolist(), tensors["token_counts"].tolist()
            outcome = self._score.outcome([tensors[name] for name in _OUTPUTS], prefix_ids, token_counts)
        except Exception:  # one request's fault must not fail its neighbours
            pb_utils.Logger.log_error(traceback.format_exc())
            self._metrics.refused("failed")
            return error("the request could not be scored; the server's log says why")
        if isinstance(outcome, NoVerdict):
            self._metrics.refused("failed")
            return error(str(outcome))
        self._metrics.computed(time.perf_counter() - start)
        self._metrics.verdict(outcome)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(wire.VERDICT, np.array([[outcome.to_json()]], dtype=np.object_))]
        )
