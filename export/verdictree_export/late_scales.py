"""Scale a gated MLP's products late: by a number for each token instead of a number for each of its channels.

The down projection reads h = a ∘ s·u, u being the up projection's integer product and s a scale for each token.
Rounding h divides by the token's largest |h|, so a ∘ u is rounded to the same levels, and s may multiply their scale
instead.
"""

from __future__ import annotations

import onnx
from onnx import helper

from verdictree_export.graph_index import GraphIndex


def scale_late(model: onnx.ModelProto) -> int:
    """Do so in a graph that `quantize` made, in place, where h is read by one rounding alone; return how often."""
    index, count = GraphIndex(model), 0
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        gated = _gated_by(index, node)
        if gated is None:
            continue
        scaled = index.producers[gated.input[1]]
        gated.input[1] = scaled.input[0]
        # What multiplied h by the rounding's scales now multiplies by both.
        late = f"{node.output[0]}/late"
        for reader in index.consumers[node.output[0]]:
            reader.input[1] = late
        nodes.append(helper.make_node("Mul", [node.output[0], scaled.input[1]], [late], name=late))
        nodes.remove(scaled)
        count += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return count


def _gated_by(index: GraphIndex, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The product a ∘ s·u whose rounding's scales (1, tokens, 1) `node` makes, if nothing else reads it, nor s·u."""
    if node.op_type != "Unsqueeze" or not node.output[0].endswith("/quantized/scales"):
        return None
    rounded = node.output[0].removesuffix("/quantized/scales")
    gated: onnx.NodeProto | None = index.producers.get(rounded)
    if gated is None or gated.op_type != "Mul" or _readers(index, rounded) != ["Abs", "QuantizeLinear"]:
        return None
    scaled = index.producers.get(gated.input[1])
    product = index.producers.get(scaled.input[0]) if scaled is not None and scaled.op_type == "Mul" else None
    if product is None or product.op_type != "MatMulIntegerToFloat" or _readers(index, gated.input[1]) != ["Mul"]:
        return None
    return gated


def _readers(index: GraphIndex, name: str) -> list[str]:
    if name in index.escaping:
        return []
    return sorted(reader.op_type for reader in index.consumers[name])
