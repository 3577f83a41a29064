"""Who makes, who reads what in an ONNX graph: what the passes that change weights look up."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

Floats = npt.NDArray[np.float32]


class GraphIndex:
    """A view of a graph, valid as long as no node is added or removed.

    producers  tensor name → the node that makes it
    consumers  tensor name → the nodes that read it
    weights    name → the floating-point initializer of that name
    escaping   tensors that a branch of an If or the graph's caller reads: where they go is not followed
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        self.escaping = {value.name for value in model.graph.output}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self.consumers.setdefault(name, []).append(node)
            for attribute in node.attribute:
                self.escaping |= tensors_read(attribute.g)
        self.weights = {
            tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT
        }

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """All nodes that read a tensor; none where it escapes, since not all its readers are known then."""
        return [] if name in self.escaping else self.consumers.get(name, [])

    def linear_weight(self, node: onnx.NodeProto | None) -> str | None:
        """The name of the weight (K, N) that `node` multiplies activations with; None where it is no linear layer."""
        if node is None or node.op_type != "MatMul" or layer_name(node) is None:
            return None
        weight = self.weights.get(node.input[1])
        return weight.name if weight is not None and len(weight.dims) == 2 else None

    def linear_layers(self) -> list[onnx.NodeProto]:
        """All products with a weight, in the graph's order; a weight comes once for each pass over the model."""
        return [node for node in self.graph.node if self.linear_weight(node)]

    def read(self, name: str) -> Floats:
        """A weight's values."""
        return numpy_helper.to_array(self.weights[name])

    def write(self, name: str, values: npt.NDArray[np.float32] | npt.NDArray[np.float64]) -> None:
        """Replace a weight's values."""
        array = np.ascontiguousarray(values, dtype=np.float32)
        self.weights[name].CopyFrom(numpy_helper.from_array(array, name))


def layer_name(node: onnx.NodeProto) -> str | None:
    """The layer that a product belongs to, such as `model/layers.3/mlp/down_proj`; None where it belongs to none.

    A pass over the model that is not the first one numbers its nodes: `down_proj_2` is `down_proj` again.
    """
    path = node.name.strip("/").split("/")[:-1]
    if not path:
        return None
    return "/".join([*path[:-1], re.sub(r"_\d+$", "", path[-1])])


def tensors_read(graph: onnx.GraphProto) -> set[str]:
    """The names of all tensors that the graph's nodes, those of their branches included, and its caller read."""
    return {value.name for value in graph.output}.union(*map(read_by, graph.node))


def read_by(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node reads, those that its branches read included."""
    return set(node.input).union(*(tensors_read(attribute.g) for attribute in node.attribute))


def needed(graph: onnx.GraphProto, names: Iterable[str]) -> set[str]:
    """All tensors that these are computed from, and these."""
    found = set(names)
    for node in reversed(graph.node):  # in topological order, so every reader comes before
        if not found.isdisjoint(node.output):
            found.update(read_by(node))
    return found
