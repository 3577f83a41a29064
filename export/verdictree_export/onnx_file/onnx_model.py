"""Write a guard's graph as an ONNX file, through optimum's exporter.

Three files: `model.onnx` is the graph, `weights.bin` holds the guard's weights, and `policies.bin` all that its
policies decide. A release of other policies shares the weights' file.
"""

from __future__ import annotations

import functools
import itertools
import math
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.external_data_helper import convert_model_to_external_data
from optimum.exporters.onnx import OnnxConfig, export
from optimum.utils import DummyInputGenerator, NormalizedConfig
from torch import Tensor, nn

from verdictree.releases.release import POLICIES_FILE, WEIGHTS_FILE
from verdictree.runtime.graph_io import INPUTS, OUTPUTS
from verdictree_export.graph.compiled_policies import CompiledPolicies
from verdictree_export.graph.guard_graph import GuardGraph
from verdictree_export.onnx_file.branches import SearchDepth, branch
from verdictree_export.onnx_file.graph_index import tensors_read
from verdictree_export.onnx_file.graph_session import GraphSession
from verdictree_export.onnx_file.passes import (
    drop_unused,
    keep_zero_sizes,
    make_projection_shapes_constant,
    optimize,
    use_shared_weights_directly,
)
from verdictree_export.onnx_file.rotary import fuse_rotary

OPSET = 18
POLICIES = "policies."  # how the names of their tensors in the graph begin
LOG_PRUNING_THRESHOLD = f"{POLICIES}log_epsilon"
_EXTERNAL_FROM = 1024  # bytes; smaller tensors stay in the graph's own file


def write(graph: GuardGraph, folder: Path) -> Path:
    """Export `graph` into `folder`, in standard operators of opset 18 and ONNX Runtime's own; return the graph's file.

    The folder must be new or empty. A graph in half precision is not optimized: that would be done for this
    processor, which has no such arithmetic and would get everything cast; a GPU's server does it when it starts.
    """
    path = folder / "model.onnx"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        traced = Path(scratch) / "traced.onnx"
        with warnings.catch_warnings():
            # Tracing warns of every shape it reads; parity is measured on other shapes afterwards.
            warnings.simplefilter("ignore")
            export(_Traced(graph), _GuardOnnxConfig(graph), traced, opset=OPSET, disable_dynamic_axes_fix=True)
        model = onnx.load(traced, load_external_data=False)
        use_shared_weights_directly(model)
        make_projection_shapes_constant(model)
        keep_zero_sizes(model)
        fuse_rotary(model)
        drop_unused(model)
        if graph.dtype == torch.float32:
            onnx.save(model, traced)
            del model
            optimize(traced, path, WEIGHTS_FILE)
        else:
            onnx.load_external_data_for_model(model, scratch)
            onnx.save(model, path, save_as_external_data=True, location=WEIGHTS_FILE, size_threshold=_EXTERNAL_FROM)
    set_policies(path, graph.policies)
    return path


def save(model: onnx.ModelProto, path: Path, policies: CompiledPolicies) -> None:
    """Write a graph whose weights are in memory in place of the one at `path`."""
    weights = [one for one in model.graph.initializer if not one.name.startswith(POLICIES)]
    model.graph.ClearField("initializer")
    model.graph.initializer.extend(weights)
    _empty(path.with_name(WEIGHTS_FILE))
    onnx.save(model, path, save_as_external_data=True, location=WEIGHTS_FILE, size_threshold=_EXTERNAL_FROM)
    set_policies(path, policies)


def finish(path: Path) -> None:
    """Let the graph at `path` pass over the depths of the search at which no path of a batch is live.

    The last step: what looks at layers by name does not look into branches.
    """
    model = onnx.load(path, load_external_data=False)
    made = {name for node in model.graph.node for name in node.output}
    depths = [
        SearchDepth(_any_live(depth), {name: _without(name, depth) for name in OUTPUTS})
        for depth in itertools.takewhile(lambda depth: _any_live(depth) in made, itertools.count())
    ]
    if depths:
        branch(model, depths, functools.partial(_element_types, path))
    drop_unused(model)
    onnx.save(model, path)


def _element_types(path: Path, names: Iterable[str]) -> dict[str, int]:
    """What the named tensors of the graph at `path` hold, as ONNX counts types."""
    model = onnx.load(path, load_external_data=False)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    whole = path.with_name("inner_outputs.onnx")  # beside the weights
    onnx.save(model, whole)
    try:
        return GraphSession(whole).element_types()
    finally:
        whole.unlink()


def set_policies(path: Path, policies: CompiledPolicies, with_caches: bool = False) -> None:
    """Let the ONNX file `path` ask by these policies from now on; their file beside it is written anew.

    `with_caches` makes the prefill pass's keys and values outputs too.
    """
    model = onnx.load(path, load_external_data=False)
    values = {f"{POLICIES}{name}": value for name, value in policies.named_buffers()}
    used = tensors_read(model.graph)
    inputs = [one for one in model.graph.input if one.name not in values]
    weights = [one for one in model.graph.initializer if one.name not in values]
    constants = [onnx.numpy_helper.from_array(values[name].numpy(), name) for name in sorted(used & values.keys())]
    outputs = [one for one in model.graph.output if one.name in OUTPUTS]
    for name in cache_names(policies.prefix_cache.num_layers) if with_caches else ():
        outputs.append(onnx.helper.make_empty_tensor_value_info(name))
    for field, kept in (("input", inputs), ("initializer", [*weights, *constants]), ("output", outputs)):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(kept)
    _empty(path.with_name(POLICIES_FILE))
    convert_model_to_external_data(model, location=POLICIES_FILE, size_threshold=_EXTERNAL_FROM)
    onnx.save(model, path)


def _empty(path: Path) -> None:
    path.unlink(missing_ok=True)  # what is there would be added to
    path.touch()  # onnx would make it unreadable for others, but a server may run as another user


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
        for every release, so they are declared open. The caches are outputs for the time of the export."""
        requests = {
            "label_logits": {0: "batch", 1: "nodes", 2: "vocabulary"},
            "log_normalizer": {0: "batch", 1: "nodes"},
            "top_logit": {0: "batch", 1: "nodes"},
            "expansions": {0: "batch", 1: "slots", 2: "levels"},
        }
        choices: dict[str, dict[int, str]] = {}
        for depth in range(len(self._policies.tries)):
            choices |= {_any_live(depth): {}} | {_without(name, depth): axes for name, axes in requests.items()}
        caches = {name: {0: "rows", 2: "keys"} for name in cache_names(self._policies.prefix_cache.num_layers)}
        return {**requests, **choices, **caches}

    def generate_dummy_inputs(self, framework: str = "pt", **shapes: Any) -> dict[str, Any]:
        """What is traced: a live path at every depth, since every path is followed."""
        buffers = dict(self._policies.named_buffers())
        buffers["log_epsilon"] = torch.full_like(buffers["log_epsilon"], -math.inf)
        requests = {name: _RaggedBatch("", None).generate(name) for name in INPUTS}
        return {**requests, "policies": list(buffers.values())}


def cache_names(num_layers: int) -> list[str]:
    """The names in the graph of the prefill pass's keys and values, layer by layer."""
    return [f"trunk.{kind}_{layer}" for layer in range(num_layers) for kind in ("keys", "values")]


def _any_live(depth: int) -> str:
    """The name of whether any path is expanded at this search depth."""
    return f"any_live_{depth}"


def _without(output: str, depth: int) -> str:
    """The name of an output as it is where none is."""
    return f"{output}/without_{depth}"


def _open_axes(name: str, value: Tensor) -> list[int]:
    if name.startswith(("bank.keys_", "bank.values_")):
        return [0, 2]  # prompts and tokens; heads and their size are the model's
    return list(range(value.dim()))
