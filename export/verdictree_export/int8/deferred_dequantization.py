"""Scale a gated MLP's products late: by a number for each token instead of a number for each of its channels.

The down projection reads h = a ∘ s·u, u being the up projection's integer product and s a scale for each token.
Rounding h divides by the token's largest |h|, so a ∘ u is rounded to the same levels, and s may multiply their scale
instead.
"""

from __future__ import annotations

import onnx_ir as ir

from verdictree.runtime.session import INTEGER_PRODUCT
from verdictree_export.onnx_file.neighbours import readers, source


def defer_dequantization(model: ir.Model) -> int:
    """Do so in a graph that `quantize` made, in place, where h is read by one rounding alone; return how often."""
    count = 0
    for node in list(model.graph):
        gated = _gated_by(node)
        scaled = source(gated, 1)
        if gated is None or scaled is None:
            continue
        gated.replace_input_with(1, scaled.inputs[0])
        # What multiplied h by the rounding's scales now multiplies by both.
        scales, late = node.outputs[0], ir.val(f"{node.outputs[0].name}/late")
        scales.replace_all_uses_with(late)
        node.append(ir.node("Mul", [scales, scaled.inputs[1]], outputs=[late], name=late.name))
        model.graph.remove(scaled, safe=True)
        count += 1
    return count


def _gated_by(node: ir.Node) -> ir.Node | None:
    """The product a ∘ s·u whose rounding's scales (1, tokens, 1) `node` makes, if nothing else reads it, nor s·u."""
    scale = node.inputs[0] if node.op_type == "Unsqueeze" else None
    rounding = [one for one in readers(scale) if one.op_type == "QuantizeLinear"] if scale is not None else []
    gated = source(rounding[0], 0) if rounding else None
    if gated is None or gated.op_type != "Mul" or _kinds(readers(gated.outputs[0])) != ["Abs", "QuantizeLinear"]:
        return None
    scaled = source(gated, 1)
    product = source(scaled, 0)
    if scaled is None or scaled.op_type != "Mul" or product is None or product.op_type != INTEGER_PRODUCT:
        return None
    return gated if readers(scaled.outputs[0]) == [gated] else None


def _kinds(nodes: list[ir.Node]) -> list[str]:
    return sorted(node.op_type for node in nodes)
