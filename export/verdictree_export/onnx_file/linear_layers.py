"""Weights and linear layers of an ONNX graph, as onnx-ir holds it: what the passes look up."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Floats = npt.NDArray[np.float32]


def is_weight(value: ir.Value | None) -> bool:
    """Whether this is a floating-point initializer."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return False
    return value.const_value.dtype == ir.DataType.FLOAT


def is_embedding(node: ir.Node) -> bool:
    """Whether this looks tokens up in the embedding."""
    table = node.inputs[0] if node.op_type == "Gather" else None
    return table is not None and "embed" in (table.name or "") and is_weight(table)


def linear_weight(node: ir.Node | None) -> ir.Value | None:
    """The weight (K, N) that `node` multiplies activations with; None where it is no linear layer."""
    if node is None or node.op_type != "MatMul" or layer_name(node) is None:
        return None
    weight = node.inputs[1]
    return weight if weight is not None and is_weight(weight) and len(shape(weight)) == 2 else None


def linear_layers(model: ir.Model) -> list[ir.Node]:
    """All products with a weight, in the graph's order; a weight comes once for each pass over the model."""
    return [node for node in model.graph if linear_weight(node) is not None]


def layer_name(node: ir.Node) -> str | None:
    """The layer that a product belongs to, such as `model/layers.3/mlp/down_proj`; None where it belongs to none.

    A pass over the model that is not the first one numbers its nodes: `down_proj_2` is `down_proj` again.
    """
    path = (node.name or "").strip("/").split("/")[:-1]
    if not path:
        return None
    return "/".join([*path[:-1], re.sub(r"_\d+$", "", path[-1])])


def shape(weight: ir.Value) -> tuple[int, ...]:
    """A weight's shape."""
    return tuple(_tensor(weight).shape.numpy())


def read(weight: ir.Value) -> Floats:
    """A copy of a weight's values."""
    tensor = _tensor(weight)
    values = np.array(tensor.numpy(), dtype=np.float32)
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()  # it maps the whole file, and so would every other weight that is read
    return values


def write(weight: ir.Value, values: npt.NDArray[np.float32] | npt.NDArray[np.float64]) -> None:
    """Replace a weight's values, in memory."""
    array = np.ascontiguousarray(values, dtype=np.float32).reshape(shape(weight))
    weight.const_value = ir.tensor(array, name=weight.name)


def _tensor(weight: ir.Value) -> ir.TensorProtocol:
    if weight.const_value is None:
        raise ValueError(f"expected an initializer with a value, got {weight.name}")
    return weight.const_value
