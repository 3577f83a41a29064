"""int8: weights quantized per output channel, activations per token, inside the graph.

For a token's activations x (K,) and a weight W (K, N):

    s = max|x| / 127        q = round(x / s) + 128       uint8, this token's own scale
    t_n = max|W_·n| / 127   P ≈ W / t                    int8, a scale for each output channel; see `rounding`
    y_n = s · t_n · Σ_k (q_k − 128) · P_kn

Where 8 bits are too few for a layer's activations, the residual x − s(q − 128), which is at most s/2, is quantized
too, with s/254 in place of s, and gets a second product with the same weight. That leaves the weight's rounding only.

A scale that covers the whole batch, as ONNX Runtime's own dynamic quantization takes, would let one request's text
change another's numbers. Here no number depends on another token, and integer sums do not depend on their order.
Activations are uint8, since that times int8 is the product that processors have an instruction for; for those without
one see `runtime.unsigned_weights`. The embedding's rows are looked up, not multiplied: fp16 costs no time there, and
8 bits would round the input of every layer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from verdictree.runtime.session import INTEGER_PRODUCT
from verdictree_export.int8.activations import Activations, Feed, calibrate
from verdictree_export.int8.deferred_dequantization import defer_dequantization
from verdictree_export.int8.rotation import rotate
from verdictree_export.int8.rounding import LEVELS, channel_scales, round_to_nearest, round_with_compensation
from verdictree_export.int8.smoothing import smooth_gated
from verdictree_export.onnx_file import contrib
from verdictree_export.onnx_file.graph_index import GraphIndex, layer_name

_ZERO_POINT = 128
_FIRST_LAYERS = 5
_LEAST_SCALE = 1e-12  # of a token of zeros


def prepare(model: onnx.ModelProto, feeds: Iterable[Feed]) -> dict[str, Activations]:
    """Make an optimized fp32 graph easy to quantize, in place, without changing its function; what its layers meet.

    Rotates the residual stream and smooths the inputs of down projections where the architecture allows it. `feeds`
    are the graph's inputs for calibration conversations, a batch each.
    """
    rotate(model)
    statistics = calibrate(model, feeds)
    smooth_gated(model, statistics)
    return statistics


def most_sensitive(layer: str) -> bool:
    """Whether this layer's activations suffer most from 8 bits: the first down projections of a small guard."""
    return layer.endswith("down_proj") and _number(layer) < _FIRST_LAYERS


def sensitive(layer: str) -> bool:
    """Whether they suffer: all down projections, and the first layers whole."""
    return layer.endswith("down_proj") or _number(layer) < _FIRST_LAYERS


def _number(layer: str) -> float:
    found = re.search(r"layers\.(\d+)/", layer)
    return int(found[1]) if found else math.inf


def quantize(
    model: onnx.ModelProto,
    statistics: Mapping[str, Activations],
    keep: Collection[str] = (),
    with_residual: Callable[[str], bool] = most_sensitive,
) -> list[str]:
    """Quantize the linear layers and the embedding of an optimized graph in place; return the layers' names.

    `statistics` are what `prepare` returned for this graph; a weight without any is rounded to nearest. `keep` names
    layers, as this function returns them, that stay in floating point; `with_residual` says of a layer whether its
    activations get a second term for the residual. Passes that share a weight share the int8 one.
    """
    layers = _Quantizer(model, statistics, keep, with_residual).run()
    defer_dequantization(model)
    return layers


class _Quantizer:
    def __init__(
        self,
        model: onnx.ModelProto,
        statistics: Mapping[str, Activations],
        keep: Collection[str],
        with_residual: Callable[[str], bool],
    ) -> None:
        self._graph = model.graph
        self._index = GraphIndex(model)
        self._statistics = statistics
        self._keep = frozenset(keep)
        self._with_residual = with_residual
        self._nodes: list[onnx.NodeProto] = []
        self._tokens: dict[str, tuple[str, str]] = {}
        self._weights: dict[str, tuple[str, str]] = {}
        self._layers: dict[str, None] = {}
        contrib.declare(model)

    def run(self) -> list[str]:
        self._add("quantize/levels", np.array(1 / LEVELS, dtype=np.float32))
        self._add("quantize/least_scale", np.array(_LEAST_SCALE, dtype=np.float32))
        self._add("quantize/zero_point", np.array(_ZERO_POINT, dtype=np.uint8))
        self._add("quantize/one", np.array(1, dtype=np.float32))
        self._add("quantize/middle", np.array(_ZERO_POINT, dtype=np.float32))
        self._add("quantize/finer", np.array(0.5 / LEVELS, dtype=np.float32))
        self._add("quantize/axes", np.array([0, 2], dtype=np.int64))
        for node in list(self._graph.node):
            if self._is_chosen(node):
                (self._linear if node.op_type == "MatMul" else self._embedding)(node)
            else:
                self._nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        self._drop_unused()
        return list(self._layers)

    def _is_chosen(self, node: onnx.NodeProto) -> bool:
        embedding = node.op_type == "Gather" and "embed" in node.input[0] and node.input[0] in self._index.weights
        name = layer_name(node)
        if name is None or name in self._keep or not (embedding or self._index.linear_weight(node)):
            return False
        self._layers[name] = None
        return True

    def _linear(self, node: onnx.NodeProto) -> None:
        weight, scales = self._quantized_weight(node.input[1])
        terms = [self._quantized_tokens(node.input[0])]
        if self._with_residual(layer_name(node) or ""):
            terms.append(self._quantized_residual(node.input[0], *terms[0]))
        outputs = [node.output[0]] if len(terms) == 1 else [f"{node.name}/term_{n}" for n in range(len(terms))]
        for (tokens, scale), output in zip(terms, outputs, strict=True):
            inputs = [tokens, weight, "quantize/one", scales, "quantize/zero_point"]
            self._node(INTEGER_PRODUCT, inputs, f"{output}/product", domain=contrib.DOMAIN)
            self._node("Mul", [f"{output}/product", scale], output, name=f"{output}/scaled")
        if len(terms) > 1:
            self._node("Add", outputs, node.output[0], name=f"{node.name}/sum")

    def _quantized_tokens(self, name: str) -> tuple[str, str]:
        """The names of the uint8 activations (1, tokens, K) and of their scales (1, tokens, 1); once for an input."""
        if name not in self._tokens:
            at = f"{name}/quantized"
            self._node("Abs", [name], f"{at}/abs")
            self._node("ReduceMax", [f"{at}/abs", "quantize/axes"], f"{at}/max", keepdims=0)
            self._node("Mul", [f"{at}/max", "quantize/levels"], f"{at}/small_scale")
            self._node("Max", [f"{at}/small_scale", "quantize/least_scale"], f"{at}/scale")
            self._tokens[name] = self._rounded(name, at, f"{at}/scale")
        return self._tokens[name]

    def _quantized_residual(self, name: str, tokens: str, scales: str) -> tuple[str, str]:
        """The second term: what rounding `name` to `tokens` left."""
        at = f"{name}/remainder"
        if at not in self._tokens:
            self._node("Cast", [tokens], f"{at}/levels", to=TensorProto.FLOAT)
            self._node("Sub", [f"{at}/levels", "quantize/middle"], f"{at}/signed")
            self._node("Mul", [f"{at}/signed", scales], f"{at}/first")
            self._node("Sub", [name, f"{at}/first"], at)
            self._node("Mul", [f"{name}/quantized/scale", "quantize/finer"], f"{at}/scale")
            self._tokens[at] = self._rounded(at, f"{at}/quantized", f"{at}/scale")
        return self._tokens[at]

    def _rounded(self, name: str, at: str, scale: str) -> tuple[str, str]:
        """`name` in steps of `scale` (tokens,), named `at`; and the scales (1, tokens, 1)."""
        self._node("Shape", [scale], f"{at}/shape")
        zero_point = helper.make_tensor("value", TensorProto.UINT8, [1], [_ZERO_POINT])
        self._node("ConstantOfShape", [f"{at}/shape"], f"{at}/zero_points", value=zero_point)
        self._node("QuantizeLinear", [name, scale, f"{at}/zero_points"], at, axis=1)
        self._node("Unsqueeze", [scale, "quantize/axes"], f"{at}/scales")
        return at, f"{at}/scales"

    def _quantized_weight(self, name: str) -> tuple[str, str]:
        if name not in self._weights:
            weight, known = self._index.read(name), self._statistics.get(name)
            scales = channel_scales(weight)
            rounded = (
                round_with_compensation(weight, scales, known.second_moment)
                if known is not None
                else round_to_nearest(weight, scales)
            )
            self._weights[name] = (self._add(f"{name}/int8", rounded), self._add(f"{name}/scales", scales))
        return self._weights[name]

    def _embedding(self, node: onnx.NodeProto) -> None:
        table, half = node.input[0], f"{node.input[0]}/fp16"
        if table not in self._weights:
            self._weights[table] = (self._add(half, self._index.read(table).astype(np.float16)), "")
        self._node("Gather", [half, node.input[1]], f"{node.name}/fp16")
        self._node("Cast", [f"{node.name}/fp16"], node.output[0], name=f"{node.name}/float", to=TensorProto.FLOAT)

    def _node(self, operator: str, inputs: list[str], output: str, name: str = "", **attributes: Any) -> None:
        self._nodes.append(helper.make_node(operator, inputs, [output], name=name or output, **attributes))

    def _add(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _drop_unused(self) -> None:
        escaping = self._index.escaping
        used = escaping.union(*(node.input for node in self._graph.node))
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
