"""The operators that stand for a linear layer or an embedding in an int8 graph; for the formulas see `quantize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from verdictree.runtime.session import INTEGER_PRODUCT
from verdictree_export.int8.activations import Activations
from verdictree_export.int8.rounding import LEVELS, channel_scales, round_to_nearest, round_with_compensation
from verdictree_export.onnx_file.linear_layers import read
from verdictree_export.onnx_file.neighbours import CONTRIB, inputs, replace

_ZERO_POINT = 128
_LEAST_SCALE = 1e-12  # of a token of zeros


class _Rounded(NamedTuple):
    """uint8 activations (1, tokens, K), the step of each token (tokens,), and the same as (1, tokens, 1)."""

    levels: ir.Value
    scale: ir.Value
    scales: ir.Value


class IntegerOperators:
    """Puts integer operators in the place of a graph's nodes; what several of them need is there once."""

    def __init__(self, graph: ir.Graph, statistics: Mapping[str, Activations]) -> None:
        self._graph = graph
        self._statistics = statistics
        self._tokens: dict[ir.Value, _Rounded] = {}
        self._residuals: dict[ir.Value, _Rounded] = {}
        self._weights: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self._tables: dict[ir.Value, ir.Value] = {}
        graph.opset_imports.setdefault(CONTRIB, 1)
        self._levels = self._add("quantize/levels", np.array(1 / LEVELS, dtype=np.float32))
        self._least_scale = self._add("quantize/least_scale", np.array(_LEAST_SCALE, dtype=np.float32))
        self._zero_point = self._add("quantize/zero_point", np.array(_ZERO_POINT, dtype=np.uint8))
        self._one = self._add("quantize/one", np.array(1, dtype=np.float32))
        self._middle = self._add("quantize/middle", np.array(_ZERO_POINT, dtype=np.float32))
        self._finer = self._add("quantize/finer", np.array(0.5 / LEVELS, dtype=np.float32))
        self._axes = self._add("quantize/axes", np.array([0, 2], dtype=np.int64))

    def replace(self, node: ir.Node, with_residual: bool) -> None:
        """Let integer operators compute what `node`, a product or a look-up, does."""
        self._place = node
        replace(node, self._embedding(node) if node.op_type == "Gather" else self._linear(node, with_residual))

    def _linear(self, node: ir.Node, with_residual: bool) -> ir.Value:
        activations, weight = inputs(node)
        terms = [self._quantized_tokens(activations)]
        if with_residual:
            terms.append(self._quantized_residual(activations, terms[0]))
        output = node.outputs[0].name
        names = [f"{node.name}/term_{n}" for n in range(len(terms))] if len(terms) > 1 else [output]
        scaled = [self._term(term, weight, f"{name}") for term, name in zip(terms, names, strict=True)]
        return self._node("Add", scaled, f"{output}", name=f"{node.name}/sum") if len(terms) > 1 else scaled[0]

    def _term(self, tokens: _Rounded, weight: ir.Value, output: str) -> ir.Value:
        levels, scales = self._quantized_weight(weight)
        operands = [tokens.levels, levels, self._one, scales, self._zero_point]
        product = self._node(INTEGER_PRODUCT, operands, f"{output}/product", domain=CONTRIB)
        return self._node("Mul", [product, tokens.scales], output, name=f"{output}/scaled")

    def _quantized_tokens(self, x: ir.Value) -> _Rounded:
        if x not in self._tokens:
            at = f"{x.name}/quantized"
            absolute = self._node("Abs", [x], f"{at}/abs")
            most = self._node("ReduceMax", [absolute, self._axes], f"{at}/max", {"keepdims": 0})
            small = self._node("Mul", [most, self._levels], f"{at}/small_scale")
            self._tokens[x] = self._rounded(x, at, self._node("Max", [small, self._least_scale], f"{at}/scale"))
        return self._tokens[x]

    def _quantized_residual(self, x: ir.Value, tokens: _Rounded) -> _Rounded:
        """The second term: what rounding x to `tokens` left."""
        if x not in self._residuals:
            at = f"{x.name}/remainder"
            levels = self._node("Cast", [tokens.levels], f"{at}/levels", {"to": ir.DataType.FLOAT})
            signed = self._node("Sub", [levels, self._middle], f"{at}/signed")
            first = self._node("Mul", [signed, tokens.scales], f"{at}/first")
            remainder = self._node("Sub", [x, first], at)
            finer = self._node("Mul", [tokens.scale, self._finer], f"{at}/scale")
            self._residuals[x] = self._rounded(remainder, f"{at}/quantized", finer)
        return self._residuals[x]

    def _rounded(self, x: ir.Value, at: str, scale: ir.Value) -> _Rounded:
        """x in steps of `scale`, named `at`."""
        shape = self._node("Shape", [scale], f"{at}/shape")
        zero_point = ir.tensor(np.array([_ZERO_POINT], dtype=np.uint8), name="value")
        zero_points = self._node("ConstantOfShape", [shape], f"{at}/zero_points", {"value": zero_point})
        levels = self._node("QuantizeLinear", [x, scale, zero_points], at, {"axis": 1})
        return _Rounded(levels, scale, self._node("Unsqueeze", [scale, self._axes], f"{at}/scales"))

    def _quantized_weight(self, weight: ir.Value) -> tuple[ir.Value, ir.Value]:
        if weight not in self._weights:
            values, known = read(weight), self._statistics.get(weight.name or "")
            scales = channel_scales(values)
            rounded = (
                round_with_compensation(values, scales, known.second_moment)
                if known is not None
                else round_to_nearest(values, scales)
            )
            self._weights[weight] = (
                self._add(f"{weight.name}/int8", rounded),
                self._add(f"{weight.name}/scales", scales),
            )
        return self._weights[weight]

    def _embedding(self, node: ir.Node) -> ir.Value:
        table, ids = inputs(node)
        if table not in self._tables:
            self._tables[table] = self._add(f"{table.name}/fp16", read(table).astype(np.float16))
        rows = self._node("Gather", [self._tables[table], ids], f"{node.name}/fp16")
        attributes = {"to": ir.DataType.FLOAT}
        return self._node("Cast", [rows], f"{node.outputs[0].name}", attributes, name=f"{node.name}/float")

    def _node(
        self,
        operator: str,
        operands: Sequence[ir.Value],
        output: str,
        attributes: Mapping[str, Any] | None = None,
        name: str = "",
        domain: str = "",
    ) -> ir.Value:
        made = ir.val(output)
        self._place.prepend(ir.node(operator, operands, attributes, outputs=[made], name=name or output, domain=domain))
        return made

    def _add(self, name: str, values: npt.NDArray[np.generic]) -> ir.Value:
        added = ir.val(name, const_value=ir.tensor(np.ascontiguousarray(values), name=name))
        self._graph.register_initializer(added)
        return added
