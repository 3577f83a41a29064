"""int8: weights quantized per output channel, activations per token, inside the graph.

For a token's activations x (K,) and a weight W (K, N):

    s = max|x| / 127        q = round(x / s) + 128       uint8, this token's own scale
    t_n = max|W_·n| / 127   P_·n = round(W_·n / t_n)     int8, a scale for each output channel
    y_n = s · t_n · Σ_k (q_k − 128) · P_kn

A scale that covers the whole batch, as ONNX Runtime's own dynamic quantization takes, would let one request's text
change another's numbers. Here no number depends on another token, and integer sums do not depend on their order.
Activations are uint8, since that times int8 is the product that processors have an instruction for.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

_CONTRIB = "com.microsoft"
_LEVELS = 127.0
_ZERO_POINT = 128
_LEAST_SCALE = 1e-12  # of a token of zeros
_MIN_CHANNELS = 16  # smaller products, such as the label paths', are no layers of the model


def quantize(model: onnx.ModelProto, keep: Collection[str] = ()) -> list[str]:
    """Quantize the linear layers and the embedding of a traced graph in place; return the layers' names.

    `keep` names layers, as this function returns them, that stay in floating point. Activations of the layers have
    shape (1, tokens, K).
    """
    return _Quantizer(model, keep).run()


class _Quantizer:
    def __init__(self, model: onnx.ModelProto, keep: Collection[str]) -> None:
        self._graph = model.graph
        self._keep = frozenset(keep)
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._quantized_inputs: dict[str, tuple[str, str]] = {}
        self._weights: dict[str, tuple[str, str]] = {}
        self._layers: dict[str, None] = {}
        if all(entry.domain != _CONTRIB for entry in model.opset_import):
            model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))

    def run(self) -> list[str]:
        self._add("quantize/levels", np.array(1 / _LEVELS, dtype=np.float32))
        self._add("quantize/least_scale", np.array(_LEAST_SCALE, dtype=np.float32))
        self._add("quantize/zero_point", np.array(_ZERO_POINT, dtype=np.uint8))
        self._add("quantize/one", np.array(1, dtype=np.float32))
        self._add("quantize/axes", np.array([0, 2], dtype=np.int64))
        self._add("quantize/channels", np.array([2], dtype=np.int64))
        self._add("quantize/table_axis", np.array([-1], dtype=np.int64))
        for node in list(self._graph.node):
            if self._is_linear(node):
                self._linear(node)
            elif self._is_embedding(node):
                self._embedding(node)
            else:
                self._nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        self._drop_unused()
        return list(self._layers)

    def _is_linear(self, node: onnx.NodeProto) -> bool:
        weight = self._tensors.get(node.input[1]) if node.op_type == "MatMul" else None
        layer = weight is not None and len(weight.dims) == 2 and weight.dims[1] >= _MIN_CHANNELS
        if not layer or not node.name or "/" not in node.name.strip("/"):
            return False
        name = layer_name(node)
        if name in self._keep:
            return False
        self._layers[name] = None
        return True

    def _is_embedding(self, node: onnx.NodeProto) -> bool:
        table = self._tensors.get(node.input[0]) if node.op_type == "Gather" else None
        return table is not None and table.data_type == TensorProto.FLOAT and "embed" in table.name

    def _linear(self, node: onnx.NodeProto) -> None:
        tokens, scale = self._quantized_tokens(node.input[0])
        weight, channel_scales = self._quantized_weight(node.input[1], axis=0)
        name = node.name
        inputs = [tokens, weight, "quantize/one", channel_scales, "quantize/zero_point"]
        self._node("MatMulIntegerToFloat", inputs, f"{name}/product", domain=_CONTRIB)
        self._node("Mul", [f"{name}/product", scale], node.output[0], name=f"{name}/scaled")

    def _quantized_tokens(self, name: str) -> tuple[str, str]:
        """The names of the uint8 activations (1, tokens, K) and of their scales (1, tokens, 1); once for an input."""
        if name not in self._quantized_inputs:
            at = f"{name}/quantized"
            self._node("Abs", [name], f"{at}/abs")
            self._node("ReduceMax", [f"{at}/abs", "quantize/axes"], f"{at}/max", keepdims=0)
            self._node("Mul", [f"{at}/max", "quantize/levels"], f"{at}/small_scale")
            self._node("Max", [f"{at}/small_scale", "quantize/least_scale"], f"{at}/scale")
            self._node("Shape", [f"{at}/scale"], f"{at}/shape")
            zero_point = helper.make_tensor("value", TensorProto.UINT8, [1], [_ZERO_POINT])
            self._node("ConstantOfShape", [f"{at}/shape"], f"{at}/zero_points", value=zero_point)
            self._node("QuantizeLinear", [name, f"{at}/scale", f"{at}/zero_points"], at, axis=1)
            self._node("Unsqueeze", [f"{at}/scale", "quantize/axes"], f"{at}/scales")
            self._quantized_inputs[name] = (at, f"{at}/scales")
        return self._quantized_inputs[name]

    def _quantized_weight(self, name: str, axis: int) -> tuple[str, str]:
        """The names of the int8 weight and of its scales; `axis` is the one that each scale covers."""
        if name not in self._weights:
            weight = numpy_helper.to_array(self._tensors[name])
            scales = np.maximum(np.abs(weight).max(axis=axis, keepdims=True) / _LEVELS, _LEAST_SCALE)
            self._add(f"{name}/int8", np.round(weight / scales).astype(np.int8))
            self._add(f"{name}/scales", scales.squeeze(axis).astype(np.float32))
            self._weights[name] = (f"{name}/int8", f"{name}/scales")
        return self._weights[name]

    def _embedding(self, node: onnx.NodeProto) -> None:
        table, scales = self._quantized_weight(node.input[0], axis=1)
        name = node.name
        self._node("Gather", [table, node.input[1]], f"{name}/int8")
        self._node("Cast", [f"{name}/int8"], f"{name}/float", to=TensorProto.FLOAT)
        self._node("Gather", [scales, node.input[1]], f"{name}/scale")
        self._node("Unsqueeze", [f"{name}/scale", "quantize/table_axis"], f"{name}/scales")
        self._node("Mul", [f"{name}/float", f"{name}/scales"], node.output[0], name=f"{name}/scaled")

    def _node(self, operator: str, inputs: list[str], output: str, name: str = "", **attributes: object) -> None:
        self._nodes.append(helper.make_node(operator, inputs, [output], name=name or output, **attributes))

    def _add(self, name: str, value: npt.NDArray[np.generic]) -> None:
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))

    def _drop_unused(self) -> None:
        used = {name for node in self._graph.node for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)


def layer_name(node: onnx.NodeProto) -> str:
    """The layer that a product of the traced graph belongs to, such as `model/layers.3/mlp/down_proj`.

    A pass over the model that is not the first one numbers its nodes: `down_proj_2` is `down_proj` again.
    """
    path = node.name.strip("/").split("/")[:-1]
    head, _, number = path[-1].rpartition("_")
    return "/".join([*path[:-1], head if head and number.isdigit() else path[-1]])
