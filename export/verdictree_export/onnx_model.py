"""Write a guard's graph as an ONNX file, through optimum's exporter."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from optimum.exporters.onnx import OnnxConfig, export
from optimum.utils import DummyInputGenerator, NormalizedConfig

from verdictree_export.graph import GuardGraph
from verdictree_export.graph_passes import (
    keep_zero_sizes,
    make_projection_shapes_explicit,
    optimize,
    use_shared_weights_directly,
)

OPSET = 18
INPUTS = ("input_ids", "row_ends", "prefix_id")


class _RaggedBatch(DummyInputGenerator):  # type: ignore[misc]
    """Three conversations of different lengths, as the exporter traces them."""

    SUPPORTED_INPUT_NAMES = INPUTS

    def __init__(self, task: str, normalized_config: Any, **_: Any) -> None:
        self._values = {
            "input_ids": np.arange(3, 12, dtype=np.int64),
            "row_ends": np.array([2, 6, 9], dtype=np.int32),
            "prefix_id": np.array([[0], [0], [0]], dtype=np.int32),
        }

    def generate(self, input_name: str, framework: str = "pt", int_dtype: str = "", float_dtype: str = "") -> Any:
        import torch

        values = self._values[input_name]
        return torch.from_numpy(values) if framework == "pt" else values


class GuardOnnxConfig(OnnxConfig):  # type: ignore[misc]
    """Names and dynamic axes of the graph's inputs and outputs."""

    NORMALIZED_CONFIG_CLASS = NormalizedConfig
    DUMMY_INPUT_GENERATOR_CLASSES = (_RaggedBatch,)

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Ragged conversations, where each ends, and which prompt each is asked with."""
        return {"input_ids": {0: "tokens"}, "row_ends": {0: "batch"}, "prefix_id": {0: "batch", 1: "questions"}}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """One row a request. The other dimensions are constants of the release, but the served configuration holds
        for every release, so they are declared open."""
        return {
            "label_logits": {0: "batch", 1: "nodes", 2: "vocabulary"},
            "log_normalizer": {0: "batch", 1: "nodes"},
            "top_logit": {0: "batch", 1: "nodes"},
            "expansions": {0: "batch", 1: "slots", 2: "max_labels"},
        }


def write(graph: GuardGraph, path: Path) -> None:
    """Export `graph` to the ONNX file `path`, in standard operators of opset 18."""
    log_epsilon = graph.log_epsilon.item()
    graph.log_epsilon.fill_(-math.inf)  # tracing needs a live path on every level
    try:
        with warnings.catch_warnings():
            # Tracing warns of every shape it reads; parity is measured on other shapes afterwards.
            warnings.simplefilter("ignore")
            export(graph, GuardOnnxConfig(graph.config), path, opset=OPSET, disable_dynamic_axes_fix=True)
    finally:
        graph.log_epsilon.fill_(log_epsilon)
    model = onnx.load(path, load_external_data=False)
    _set_log_epsilon(model, log_epsilon)
    use_shared_weights_directly(model)
    make_projection_shapes_explicit(model)
    keep_zero_sizes(model)
    onnx.save(model, path)
    del model
    optimize(path)


def _set_log_epsilon(model: onnx.ModelProto, value: float) -> None:
    for tensor in model.graph.initializer:  # a grammar without lists expands nothing and has no such tensor
        if tensor.name == "log_epsilon":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), tensor.name))
