"""Scale a gated MLP's products late: by a number for each token instead of a number for each of its channels.

The down projection reads h = a ∘ s·u, u being the up projection's integer product and s a scale for each token.
Rounding h divides by the token's largest |h|, so a ∘ u is rounded to the same levels, and s may multiply their scale
instead.
"""

from __future__ import annotations

import onnx
from onnx import helper

from verdictree.runtime.session import INTEGER_PRODUCT
from verdictree_export.onnx_file.graph_index import GraphIndex


def defer_dequantization(model: onnx.ModelProto) -> int:
    """Do so in a graph that `quantize` made, in place, where h is read by one rounding alone; return how often."""
    index = GraphIndex(model)
    nodes: list[onnx.NodeProto] = []
    early: set[str] = set()
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
        early.add(scaled.output[0])
    del model.graph.node[:]
    model.graph.node.extend(node for node in nodes if node.output[0] not in early)
    return len(early)


def _gated_by(index: GraphIndex, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The product a ∘ s·u whose rounding's scales (1, tokens, 1) `node` makes, if nothing else reads it, nor s·u."""
    if node.op_type != "Unsqueeze" or not node.output[0].endswith("/quantized/scales"):
        return None
    rounded = node.output[0].removesuffix("/quantized/scales")
    gated: onnx.NodeProto | None = index.producers.get(rounded)
    if gated is None or gated.op_type != "Mul" or _kinds(index.readers(rounded)) != ["Abs", "QuantizeLinear"]:
        return None
    scaled = index.producers.get(gated.input[1])
    product = index.producers.get(scaled.input[0]) if scaled is not None and scaled.op_type == "Mul" else None
    if product is None or product.op_type != INTEGER_PRODUCT or index.readers(gated.input[1]) != [gated]:
        return None
    return gated


def _kinds(nodes: list[onnx.NodeProto]) -> list[str]:
    return sorted(node.op_type for node in nodes)
