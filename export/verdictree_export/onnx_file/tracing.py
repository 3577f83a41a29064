"""From a torch module to ONNX, through optimum's exporter: the only module that knows optimum."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optimum.exporters.onnx import OnnxConfig, export
from optimum.utils import DummyInputGenerator, NormalizedConfig
from torch import Tensor, nn

from verdictree.runtime.graph_io import INPUTS
from verdictree_export.graph.guard_graph import GuardGraph
from verdictree_export.onnx_file.tensor_names import (
    ANY_STAYING,
    EXIT_FEATURES,
    EXIT_STATES,
    POLICIES,
    all_left,
    any_live,
    cache_names,
    without,
)

OPSET = 18


def trace(graph: GuardGraph, path: Path) -> None:
    """Write `graph` as the ONNX file `path`, in standard operators; its policies are inputs."""
    with warnings.catch_warnings():
        # Tracing warns of every shape it reads; parity is measured on other shapes afterwards.
        warnings.simplefilter("ignore")
        export(_Traced(graph), _GuardOnnxConfig(graph), path, opset=OPSET, disable_dynamic_axes_fix=True)


class _Traced(nn.Module):
    """The graph with its policies as an input, so that tracing takes none of their sizes for a constant."""

    def __init__(self, graph: GuardGraph) -> None:
        super().__init__()
        self.graph = graph
        self.config = graph.config

    def forward(
        self, input_ids: Tensor, row_ends: Tensor, prefix_id: Tensor, policies: list[Tensor]
    ) -> tuple[Tensor, ...]:
        compiled = self.graph.policies
        own = dict(compiled.named_buffers())
        compiled.put(dict(zip(own, policies, strict=True)))
        try:
            return self.graph.forward(input_ids, row_ends, prefix_id)
        finally:
            compiled.put(own)


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
        return torch.from_numpy(self._values[input_name])


class _GuardOnnxConfig(OnnxConfig):  # type: ignore[misc]
    """Names and dynamic axes of the graph's inputs and outputs."""

    NORMALIZED_CONFIG_CLASS = NormalizedConfig
    DUMMY_INPUT_GENERATOR_CLASSES = (_RaggedBatch,)

    def __init__(self, graph: GuardGraph) -> None:
        super().__init__(graph.config)
        self._policies = graph.policies
        self._has_exit = graph.exit_layer is not None

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Ragged conversations, where each ends, which prompt each is asked with, and the policies themselves."""
        requests = {"input_ids": {0: "tokens"}, "row_ends": {0: "batch"}, "prefix_id": {0: "batch", 1: "questions"}}
        return {
            **requests,
            **{
                f"{POLICIES}{name}": {axis: f"{name}_{axis}" for axis in _open_axes(name, value)}
                for name, value in self._policies.named_buffers()
            },
        }

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """One row a request. The other dimensions are constants of the release, but the served configuration holds
        for every release, so they are declared open. The caches, and what an exit reads, are outputs while it is
        exported."""
        requests = {
            "label_logits": {0: "batch", 1: "nodes", 2: "vocabulary"},
            "log_normalizer": {0: "batch", 1: "nodes"},
            "top_logit": {0: "batch", 1: "nodes"},
            "expansions": {0: "batch", 1: "slots", 2: "levels"},
        }
        choices: dict[str, dict[int, str]] = {}
        states: dict[str, dict[int, str]] = {}
        if self._has_exit:
            choices |= {ANY_STAYING: {}} | {all_left(name): axes for name, axes in requests.items()}
            states = {EXIT_STATES: {1: "packed"}, EXIT_FEATURES: {0: "rows"}}
        for depth in range(len(self._policies.tries)):
            choices |= {any_live(depth): {}} | {without(name, depth): axes for name, axes in requests.items()}
        caches = {name: {0: "rows", 2: "keys"} for name in cache_names(self._policies.prefix_cache.num_layers)}
        return {**requests, **choices, **caches, **states}

    def generate_dummy_inputs(self, framework: str = "pt", **shapes: Any) -> dict[str, Any]:
        """What is traced: a live path at every depth, since every path is followed."""
        buffers = dict(self._policies.named_buffers())
        buffers["log_epsilon"] = torch.full_like(buffers["log_epsilon"], -math.inf)
        requests = {name: _RaggedBatch("", None).generate(name) for name in INPUTS}
        return {**requests, "policies": list(buffers.values())}


def _open_axes(name: str, value: Tensor) -> list[int]:
    if name.startswith(("bank.keys_", "bank.values_")):
        return [0, 2]  # prompts and tokens; heads and their size are the model's
    return list(range(value.dim()))
