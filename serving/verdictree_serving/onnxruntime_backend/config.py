"""What a `config.pbtxt` with `backend: "onnxruntime"` says about tensors, and whether the ONNX graph agrees.

Every field means what it means to NVIDIA's C++ onnxruntime backend, so that one file is served by either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verdictree_serving.errors import InvalidModelConfig

_ONNX_TYPES = {
    "TYPE_BOOL": "tensor(bool)",
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_INT8": "tensor(int8)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP64": "tensor(double)",
}
_BATCH_INPUT_TYPES: dict[str, type[np.generic]] = {"TYPE_INT32": np.int32, "TYPE_FP32": np.float32}
# The values of a batch input, from the number of elements of its source in each request, int64 [requests].
_BATCH_INPUT_KINDS: dict[str, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    "BATCH_ELEMENT_COUNT": lambda counts: counts,
    "BATCH_ACCUMULATED_ELEMENT_COUNT": lambda counts: np.cumsum(counts),
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": lambda counts: np.cumsum(np.append(0, counts)),
    # Only its shape speaks: the C++ backend leaves the values undefined.
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE": lambda counts: np.zeros(counts.max(), np.int64),
}
_UNSUPPORTED = ("batch_output", "cc_model_filenames", "model_operations", "sequence_batching")


@dataclass(frozen=True)
class TensorConfig:
    """An input or output; `dims` has -1 for a variable dimension and leaves the batch dimension out."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    ragged: bool = False


@dataclass(frozen=True)
class BatchInput:
    """Graph inputs that Triton's backend computes from the batch instead of taking them from the requests."""

    kind: str
    data_type: str
    source: str
    targets: tuple[str, ...]

    def values(self, element_counts: Sequence[int]) -> NDArray[Any]:
        """The 1-D tensor for the `targets`; `element_counts` are the source's elements in each request."""
        counts = np.asarray(element_counts, np.int64)
        return _BATCH_INPUT_KINDS[self.kind](counts).astype(_BATCH_INPUT_TYPES[self.data_type])


@dataclass(frozen=True)
class OnnxModelConfig:
    """The part of a model configuration that concerns tensors and batching; 0 for `max_batch_size` is no batching."""

    max_batch_size: int
    inputs: tuple[TensorConfig, ...]
    outputs: tuple[TensorConfig, ...]
    batch_inputs: tuple[BatchInput, ...] = ()

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> OnnxModelConfig:
        """Read Triton's JSON form of `config.pbtxt`; raise `InvalidModelConfig` for what is not supported."""
        for field in _UNSUPPORTED:
            if config.get(field):
                raise InvalidModelConfig(f"{field} is not supported by the Python onnxruntime backend; remove it")
        inputs = tuple(_tensor(item) for item in config["input"])
        return cls(
            max_batch_size=config["max_batch_size"],
            inputs=inputs,
            outputs=tuple(_tensor(item) for item in config["output"]),
            batch_inputs=tuple(_batch_input(item, inputs) for item in config.get("batch_input", ())),
        )

    def check(self, graph_inputs: Sequence[Any], graph_outputs: Sequence[Any]) -> None:
        """Raise `InvalidModelConfig` unless names, types and shapes fit the graph's (ONNX Runtime `NodeArg`)."""
        computed = [
            TensorConfig(target, batch_input.data_type, (-1,), ragged=True)
            for batch_input in self.batch_inputs
            for target in batch_input.targets
        ]
        fed = [*self.inputs, *computed]
        _check_names("inputs", {tensor.name for tensor in fed}, {node.name for node in graph_inputs})
        offered = {node.name for node in graph_outputs}
        # A graph may compute more than is served, but not less.
        _check_names("outputs", {tensor.name for tensor in self.outputs} | offered, offered)
        nodes = {node.name: node for node in [*graph_inputs, *graph_outputs]}
        for tensor in fed:  # as in C++: the config may fix a dimension that the graph leaves open, of an input only
            self._check_tensor(tensor, nodes[tensor.name], exact=False)
        for tensor in self.outputs:
            self._check_tensor(tensor, nodes[tensor.name], exact=True)

    def _check_tensor(self, tensor: TensorConfig, node: Any, exact: bool) -> None:
        onnx_type = _ONNX_TYPES.get(tensor.data_type)
        if onnx_type != node.type:
            raise InvalidModelConfig(f"{tensor.name}: config.pbtxt says {tensor.data_type}, the graph has {node.type}")
        configured = self._graph_shape(tensor)
        graph = tuple(dim if isinstance(dim, int) else -1 for dim in node.shape)
        fits = len(graph) == len(configured) and all(
            in_graph == said or (in_graph == -1 and not exact) for in_graph, said in zip(graph, configured, strict=True)
        )
        if not fits:
            raise InvalidModelConfig(
                f"{tensor.name}: config.pbtxt promises the graph the shape {list(configured)}, it has {list(graph)}"
            )

    def _graph_shape(self, tensor: TensorConfig) -> tuple[int, ...]:
        if tensor.ragged:
            return (-1,)
        return (-1, *tensor.dims) if self.max_batch_size else tensor.dims


def _tensor(item: Mapping[str, Any]) -> TensorConfig:
    if item.get("optional"):
        raise InvalidModelConfig(f"{item['name']}: optional inputs are not supported; make it required")
    dims = item["reshape"]["shape"] if "reshape" in item else item["dims"]
    return TensorConfig(item["name"], item["data_type"], tuple(map(int, dims)), bool(item.get("allow_ragged_batch")))


def _batch_input(item: Mapping[str, Any], inputs: Sequence[TensorConfig]) -> BatchInput:
    targets, sources = tuple(item["target_name"]), item["source_input"]
    where = f"batch_input {', '.join(targets)}"
    if len(sources) != 1:
        raise InvalidModelConfig(f"{where}: expected one source_input, got {len(sources)}")
    for what, got, known in (
        ("kind", item["kind"], _BATCH_INPUT_KINDS),
        ("data_type", item["data_type"], _BATCH_INPUT_TYPES),
        ("source_input", sources[0], [tensor.name for tensor in inputs]),
    ):
        if got not in known:
            raise InvalidModelConfig(f"{where}: {what} is {got}; expected one of {', '.join(known)}")
    return BatchInput(item["kind"], item["data_type"], sources[0], targets)


def _check_names(what: str, configured: set[str], graph: set[str]) -> None:
    if configured != graph:
        raise InvalidModelConfig(f"config.pbtxt has the {what} {_list(configured)}, the graph has {_list(graph)}")


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
